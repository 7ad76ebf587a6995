"""Loss terms by name, and how they are weighed."""
