"""Verbs that use networks on media."""
