"""The network behind HTTP: routes, batches, limits and a page."""
