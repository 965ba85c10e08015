"""Prefect flows and the `galstore` command: order, retries, names and logs, no arithmetic."""
