"""Networks on arrays: training, checkpoints, scoring, baselines, metrics, figures and the report.

This package neither opens nor writes a cube.
"""
