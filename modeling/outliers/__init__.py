"""Out-of-distribution scores and flags."""
