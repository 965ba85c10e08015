"""galstore as a service on one machine: Prefect server, worker and deployments."""
