"""Built-in tasks on real data."""
