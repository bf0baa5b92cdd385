"""The network: towers, fusion, objectives, checkpoints. Knows no media file."""
