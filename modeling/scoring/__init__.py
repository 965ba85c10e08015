"""Predictions of models and ensembles, published columns, and ONNX export."""
