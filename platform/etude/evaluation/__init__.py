"""How good a student is, measured against doing nothing."""
