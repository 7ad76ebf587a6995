"""The training loop, which knows nothing of Ray, and how Ray Train runs it."""
