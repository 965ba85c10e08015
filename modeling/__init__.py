"""Networks from arrays: training, checkpoints, scoring, baselines, metrics, figures and the report.

Arrays in, arrays out: nothing here opens or writes a cube.
"""
