"""Matplotlib figures of predictions, relations, catalogs and images."""
