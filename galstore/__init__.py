"""The data plane: survey clients, the cube and its commits, readers, training sets and predictions.

Imports neither torch nor Prefect.
"""
