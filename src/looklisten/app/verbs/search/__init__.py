"""Verbs that index moments and find them."""
