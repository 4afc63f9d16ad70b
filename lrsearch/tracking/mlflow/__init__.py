"""The process that fills MLflow; nobody imports it."""
