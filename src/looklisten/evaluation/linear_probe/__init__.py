"""What a linear classifier reads from frozen embeddings, by the protocols of the paper."""
