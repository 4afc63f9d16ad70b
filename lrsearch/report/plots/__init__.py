"""Draw: the only place of matplotlib."""
