"""Built-in tasks on real data."""

BUILT_IN = {
    "digits": "lrsearch.examples.digits:task",
    "fashion-mnist": "lrsearch.examples.fashion_mnist:task",
    "mnist": "lrsearch.examples.mnist:task",
}
"""The tasks' names on the command line, and where each is defined."""
