"""Verification, repair and expiry of a cube."""
