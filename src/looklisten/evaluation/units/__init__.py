"""Which classes the vectors and single units prefer."""
