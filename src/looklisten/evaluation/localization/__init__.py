"""Whether a heat map points at the sounding object, and whether it depends on the sound."""
