"""Think: pure functions on arrays; no torch, no optuna, no mlflow, no files."""
