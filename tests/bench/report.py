"""Figures for a person and for a program."""

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tests.bench.figures import Figure

WORDS = {True: "[green]ok[/]", False: "[red]missed[/]", None: "–"}


def show(figures: Sequence[Figure]) -> None:
    """The table, then what explains each figure."""
    # Wide enough where nobody looks (a log, CI): rich would cut columns off at 80.
    console = Console(width=None if Console().is_terminal else 150)
    table = Table(title="Pullprint, each figure beside its baseline of the same run")
    for name in ("", "figure"):
        table.add_column(name)
    for name in ("value", "baseline", "ratio", "target", ""):
        table.add_column(name, justify="right")
    table.add_column("baseline is")
    for figure in figures:
        target = figure.target.text(figure.unit) if figure.target else "–"
        table.add_row(
            figure.benchmark, figure.what, number(figure.value, figure.unit), number(figure.baseline, figure.unit),
            f"{figure.ratio:.2f} ×", target, WORDS[figure.met], figure.against,
        )  # fmt: skip
    console.print(table)
    for figure in figures:
        if figure.detail:
            words = ", ".join(f"{name} {_short(value)}" for name, value in figure.detail.items())
            console.print(f"[bold]{figure.benchmark}[/] {figure.what}: {words}", highlight=False)


def number(value: float, unit: str) -> str:
    """Three digits that count."""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def _short(value: float | Sequence[float]) -> str:
    return " ".join(f"{v:.4g}" for v in value) if isinstance(value, Sequence) else f"{value:.4g}"


def write_json(path: Path, figures: Sequence[Figure], *, quick: bool) -> None:
    """Figures, and the machine that they are of."""
    machine = {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "at": int(time.time()),
        "quick": quick,
    }
    text = json.dumps({"machine": machine, "figures": [figure.to_dict() for figure in figures]}, indent=1)
    path.write_text(text + "\n")
