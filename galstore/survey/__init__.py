"""Clients of survey services, catalog files, and the checks of what they deliver."""
