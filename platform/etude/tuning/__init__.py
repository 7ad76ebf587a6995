"""Searching configurations: what may vary, and the sweep that tries it."""
