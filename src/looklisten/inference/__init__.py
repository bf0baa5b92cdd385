"""Networks in use: embeddings, heat maps, unit activations."""
