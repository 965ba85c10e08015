"""Definitions shared by all packages: columns, selections, cutouts, layout of the cube, recipes and errors.

Nothing here reads or writes a store or a service.
"""
