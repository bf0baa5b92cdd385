"""Files -> the rows of an index."""
