"""Checks made by `galstore verify`, one module for each part of the cube."""
