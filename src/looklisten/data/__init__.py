"""Videos -> shards on disk -> batches of pairs. Knows no network."""
