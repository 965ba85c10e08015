"""Checks that the services of a survey still respond as galstore expects."""
