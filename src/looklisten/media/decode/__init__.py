"""A media file -> frames and sound on one clock."""
