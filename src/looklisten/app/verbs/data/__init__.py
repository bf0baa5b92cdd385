"""Verbs that make, read and show media and shards."""
