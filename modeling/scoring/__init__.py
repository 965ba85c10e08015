"""Predictions of a model or an ensemble, their columns, and ONNX export."""
