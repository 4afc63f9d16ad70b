"""Train: tasks, schedules, the training loop and the range test's sweep."""
