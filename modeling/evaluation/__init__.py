"""Metrics, intervals, baselines and scaling relations."""
