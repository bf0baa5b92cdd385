"""Arrays -> pixels: heat maps over frames and spectrograms, overlay videos, figures."""
