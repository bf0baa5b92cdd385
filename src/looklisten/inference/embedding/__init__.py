"""Sound, images and videos -> vectors with their times."""
