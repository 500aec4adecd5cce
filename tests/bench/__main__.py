"""``python -m tests.bench [--only B1]… [--quick] [--json FILE]``: exit status 0 however the figures turn out."""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from tests.bench import copies, first_byte, idle, memory, order, report, sealing, throughput
from tests.bench.figures import Figure

BENCHMARKS: dict[str, Callable[..., Iterator[Figure]]] = {
    "B1": first_byte.run,
    "B2": order.run,
    "B3": throughput.run,
    "B4": sealing.run,
    "B5": copies.run,
    "B6": idle.run,
    "B7": memory.run,
}
"""As numbered in docs/benchmarks.md."""


def measure(names: list[str], *, quick: bool) -> list[Figure]:
    """The figures of the benchmarks *names*, in that order."""
    console = Console(stderr=True)
    figures = []
    for name in names:
        for figure in BENCHMARKS[name](quick=quick):
            console.print(f"{name} {figure.what}: {report.number(figure.value, figure.unit)}", highlight=False)
            figures.append(figure)
    return figures


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition(":")[2].strip())
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a few seconds each: shows that it runs, measures little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to FILE")
    arguments = parser.parse_args()
    figures = measure(arguments.only or list(BENCHMARKS), quick=arguments.quick)
    report.show(figures)
    if arguments.json:
        report.write_json(arguments.json, figures, quick=arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
