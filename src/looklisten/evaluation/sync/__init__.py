"""By how much the sound of a clip is early or late."""
