"""One whole configuration per system, and what is built from it once its data is open."""
