"""From an exported student to the vectors of a whole library."""
