"""Frames and sound -> heat maps."""
