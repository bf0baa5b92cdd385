"""Cutting videos in other processes, for `prepare`."""
