"""Record: the local journal, its mirror in MLflow, and where things came from."""
