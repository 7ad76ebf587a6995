"""Where runs are compared and models are kept."""
