"""Shards -> a run: the loop, one step, many processes."""
