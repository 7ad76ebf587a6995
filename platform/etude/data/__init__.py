"""The store of prepared features and targets, how it is filled, and how batches are read from it."""
