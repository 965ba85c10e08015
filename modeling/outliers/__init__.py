"""Out-of-distribution scores, consistency with the catalog, and flags of defective cutouts."""
