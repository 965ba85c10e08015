"""Distributions of catalog columns and images, and their drift between catalogs."""
