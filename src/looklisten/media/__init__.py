"""Media files and seeds -> arrays, on one clock. Knows no model."""

SAMPLE_RATE_HZ = 48_000
"""The rate that all sound is resampled to, as in the paper."""
