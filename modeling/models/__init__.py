"""Trained models as folders: written, checked, listed, promoted, exported."""
