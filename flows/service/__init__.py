"""Prefect server, worker and deployments of one machine."""
