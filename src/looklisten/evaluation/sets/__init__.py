"""Labeled sets and localization sets: one file a set, with its layout and protocol."""
