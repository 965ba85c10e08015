"""Emulator of the survey services on loopback, for tests and the demo."""
