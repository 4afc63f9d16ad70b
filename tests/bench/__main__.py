"""`python -m tests.bench NAME [options]`: each benchmark is a module here with a `main(arguments)`."""

from __future__ import annotations

import argparse
from importlib import import_module

BENCHMARKS = {
    "regret": "is the answer right, and what does it cost: against other ways to choose (README.md here)",
    "llm": "is the surface right on language-model pretrainings that nobody here made",
    "faults": "what is lost where processes are killed, servers fail, disks fill up and clocks jump",
    "overhead": "what a range test costs beside a bare loop, and beside other packages",
    "study": "what a study costs beside its trainings",
    "storage": "how fast a journal is written and read, and a study sent to MLflow",
    "rules": "how good each rule's lr is, judged by full trainings",
}


def main() -> None:
    """Hands the arguments to the benchmark that is named."""
    listed = "\n".join(f"  {name:10} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"Benchmarks:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=BENCHMARKS)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="the benchmark's own; --help lists them")
    given = parser.parse_args()
    import_module(f"tests.bench.{given.name}").main(given.options)


if __name__ == "__main__":
    main()
