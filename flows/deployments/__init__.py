"""galstore as a service of one machine: a Prefect server, a worker, and the deployments of `prefect.yaml`."""
