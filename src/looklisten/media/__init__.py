"""Media files and seeds -> arrays, on one clock. Knows no model."""

SAMPLE_RATE_HZ = 48_000
"""The rate of all sound between a file and a front end: in shards, windows and arrays.

It is that of the paper and of most videos. A network that hears another rate has a front end that
resamples; OpenL3's own rate is `OPENL3_RATE_HZ`.
"""
