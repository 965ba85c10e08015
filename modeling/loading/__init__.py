"""How images reach a network: where pixels come from, in which order, turned and normalised."""
