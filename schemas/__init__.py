"""What things are: columns, selections, cutouts, the cube's layout, recipes and errors.

Nothing here reads or writes a store, a network or a service; every other package imports from here.
"""
