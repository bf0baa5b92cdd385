"""Decoding in another process, which may crash or hang."""
