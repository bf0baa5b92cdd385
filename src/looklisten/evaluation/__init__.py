"""Measures networks: correspondence, linear probes, localization, units."""
