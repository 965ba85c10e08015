"""Indexes inside the cube: object id to row, position to rows."""
