"""HTML pages with everything inside: pairs, units, the report of the demo."""
