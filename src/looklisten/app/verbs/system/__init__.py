"""Verbs that look at this machine."""
