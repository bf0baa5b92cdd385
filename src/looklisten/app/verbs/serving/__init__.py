"""The verb that serves a network."""
