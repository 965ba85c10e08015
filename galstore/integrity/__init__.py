"""Integrity: what `verify` looks at, piece by piece."""
