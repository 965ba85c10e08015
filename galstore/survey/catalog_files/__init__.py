"""Readers of catalog files: CSV, ECSV, FITS, VOTable and Parquet."""
