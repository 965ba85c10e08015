"""Catalog files: one module a format, and what they share."""
