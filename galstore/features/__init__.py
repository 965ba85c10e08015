"""Feature store: views, splits, selections, training sets and similar objects."""
