"""A query -> the scenes of an index that are like it."""
