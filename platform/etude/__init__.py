"""Étude distils large music models into small ones that a home server can run."""

__version__ = "0.1.0"
