"""The cube: an Icechunk repository with images, catalog, labels, state and predictions."""
