"""Verbs that list networks, write them for other software, and read those of others."""
