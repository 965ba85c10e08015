"""Networks, trained models on disk, and the model store."""
