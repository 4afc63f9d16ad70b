"""Is the answer right, and what does it cost? `tests/bench/README.md` says how it is measured."""

from tests.bench.regret.run import main

__all__ = ["main"]
