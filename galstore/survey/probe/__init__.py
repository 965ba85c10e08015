"""Checks that a survey's services still answer as galstore expects."""
