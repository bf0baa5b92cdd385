"""Verbs that measure networks."""
