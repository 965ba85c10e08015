"""Work on blocks of the cube without Prefect: scoring, Dask workers, folds, plans."""
