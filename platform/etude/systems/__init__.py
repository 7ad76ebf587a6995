"""One file per system: student, targets, objective, metrics and exports held together."""
