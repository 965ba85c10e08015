"""Simulated sky: galaxies drawn from a stated mass-metallicity relation."""
