"""The report: three pages that say how good a model is, what it was fed with, and what it says about a new catalog."""
