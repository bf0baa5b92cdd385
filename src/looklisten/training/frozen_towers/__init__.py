"""Training on features of frozen towers, which are computed once."""
