"""Where the command writes: tables and sentences, in colour on a terminal, one plain line each on a pipe.

All text passes `printable` here, and rich gets it as `Text`, which has no markup: a title cannot move the cursor,
change the window's title or colour itself.
"""

import json as json_text
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from pullprint.base.errors import PullprintError
from pullprint.base.text import printable
from pullprint.cli.errors import SENTENCE_LIMIT, Usage

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

CELL_LIMIT = 255
GIVING = 8
"""Columns of the screen that a column which is cut keeps."""
GAP = 2
_HALVES = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
"""By whether the upper and the lower module are dark: light ones are drawn, as on a dark screen."""
ASK_LIMIT = 3
"""Wrong answers to one question."""


class Cell(NamedTuple):
    """One text of a table and the rich style for it."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    at: int = 0
    """Terminals narrower than this many columns do without."""
    gives: bool = False
    """This one is cut where the line is too long."""
    right: bool = False


class Progress(Protocol):
    """Says what is going on at this moment."""

    def __call__(self, text: str) -> None: ...


class Terminal:
    """Standard output for results, standard error for progress and failures."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        """Answer programs instead of people: only JSON on standard output."""
        self.draws = sys.stdout.isatty()
        self.asks = sys.stdin.isatty() and sys.stderr.isatty()

    def dump(self, value: object) -> None:
        """One JSON document on one line; ASCII, so that nothing in it reaches a terminal raw."""
        sys.stdout.write(json_text.dumps(value) + "\n")
        sys.stdout.flush()

    def say(self, text: str, style: str = "") -> None:
        """A sentence of ours; not for programs."""
        if self.json:
            return
        if self.draws:
            self._console().print(_styled(text, style, SENTENCE_LIMIT))
        else:
            sys.stdout.write(printable(text, SENTENCE_LIMIT) + "\n")
            sys.stdout.flush()

    def fail(self, error: PullprintError) -> None:
        """Why it did not work; for programs as `wire.node.Failure`, both on standard error."""
        if self.json:
            sys.stderr.write(json_text.dumps({"code": error.code, "sentence": error.sentence}) + "\n")
        elif sys.stderr.isatty():
            from rich.text import Text

            text = Text.assemble(("pullprint: ", "bold red"), _styled(error.sentence, "", SENTENCE_LIMIT))
            self._console(stderr=True).print(text)
        else:
            sys.stderr.write(f"pullprint: {printable(error.sentence, SENTENCE_LIMIT)}\n")

    def interrupted(self, *, going_on: bool) -> None:
        """Somebody pressed Ctrl-C."""
        rest = "; what was released goes on without this command, see `pullprint jobs`" if going_on else ""
        sys.stderr.write(f"\npullprint: stopped{rest}.\n")

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        """*rows* under their titles. On a pipe nothing is cut or left out, and each row stays one line."""
        if not self.draws:
            self._plain_table(columns, rows)
            return
        from rich.table import Table

        console = self._console()
        shown = [n for n, column in enumerate(columns) if column.at <= console.width]
        texts = [[_styled(row[n].text, row[n].style, CELL_LIMIT) for n in shown] for row in rows]
        widths = [max([len(columns[n].title), *(row[i].cell_len for row in texts)]) for i, n in enumerate(shown)]
        # rich cuts every column alike when a line is too long; here only those give that are said to.
        giving = [i for i, n in enumerate(shown) if columns[n].gives]
        over = sum(widths) + GAP * (len(shown) - 1) - console.width
        for i in sorted(giving, key=lambda i: -widths[i]):
            cut = min(max(over, 0), max(widths[i] - GIVING, 0))
            widths[i] -= cut
            over -= cut
        table = Table(box=None, header_style="dim", padding=(0, GAP, 0, 0), pad_edge=False)
        for i, n in enumerate(shown):
            justify: Literal["left", "right"] = "right" if columns[n].right else "left"
            table.add_column(columns[n].title, justify=justify, no_wrap=True, overflow="ellipsis", width=widths[i])
        for row in texts:
            table.add_row(*row)
        console.print(table)

    def notes(self, pairs: Sequence[tuple[Cell, str]]) -> None:
        """What else is to be said of things in a table; sentences wrap beside their subject."""
        if not self.draws:
            for subject, text in pairs:
                sys.stdout.write(f"{printable(subject.text, CELL_LIMIT)}  {printable(text, SENTENCE_LIMIT)}\n")
            return
        from rich.table import Table

        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        for subject, text in pairs:
            grid.add_row(_styled(subject.text, subject.style, CELL_LIMIT), _styled(text, "", SENTENCE_LIMIT))
        self._console().print(grid)

    def qr_code(self, dark: Sequence[Sequence[bool]]) -> None:
        """A QR code, its quiet zone included, two modules to a character; none where it does not fit or blocks are
        unknown, for a broken one is worse. A terminal gets black and white, whatever its own colours are.
        """
        rows = [*dark, [True] * len(dark[0])]  # a last one for an odd number
        pairs = zip(rows[0::2], rows[1::2], strict=False)
        lines = ["".join(_HALVES[half] for half in zip(upper, lower, strict=True)) for upper, lower in pairs]
        try:
            "".join(lines).encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            return
        if not self.draws:
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
            return
        from rich.text import Text

        console = self._console()
        if console.width >= len(lines[0]):
            console.print(Text("\n".join(lines), style="#ffffff on #000000", no_wrap=True))

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A line on standard error that always tells the latest; on a pipe, a line for each change."""
        if self.json:
            yield lambda text: None
        elif sys.stderr.isatty():
            with self._console(stderr=True).status("") as status:
                yield lambda text: status.update(_styled(text, "", CELL_LIMIT))
        else:
            yield _Changes()

    def choose(self, question: str, choices: Sequence[str]) -> int:
        """Ask which of *choices* is meant; raises Usage when nobody is there to answer."""
        lines = [f"  {n}  {printable(choice, 70)}" for n, choice in enumerate(choices, 1)]
        for _ in range(ASK_LIMIT):
            sys.stderr.write("\n".join([*lines, f"{question} [1-{len(choices)}] "]))
            sys.stderr.flush()
            answer = sys.stdin.readline(64).strip()
            if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(choices):
                return int(answer) - 1
        raise Usage(reason="Nothing was chosen, so nothing was done.")

    def confirm(self, question: str, *, default: bool = False) -> bool:
        """Ask for a yes; anything else is a no, but for an empty line, which is the *default*."""
        sys.stderr.write(printable(question, SENTENCE_LIMIT) + (" [Y/n] " if default else " [y/N] "))
        sys.stderr.flush()
        answer = sys.stdin.readline(64)
        if answer == "\n":
            return default
        return answer.strip().lower() in {"y", "yes"}

    def _console(self, *, stderr: bool = False) -> "Console":
        from rich.console import Console

        return Console(stderr=stderr, markup=False, emoji=False, highlight=False)

    def _plain_table(self, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
        lines = [[column.title for column in columns]]
        lines += [[printable(cell.text, CELL_LIMIT) or "-" for cell in row] for row in rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
        for line in lines:
            padded = [
                text.rjust(width) if column.right else text.ljust(width)
                for text, width, column in zip(line, widths, columns, strict=True)
            ]
            sys.stdout.write("  ".join(padded).rstrip() + "\n")


class _Changes:
    """Progress for a log: what was said last is not said again."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._last = text
            sys.stderr.write(printable(text, CELL_LIMIT) + "\n")
            sys.stderr.flush()


def _styled(text: str, style: str, limit: int) -> "Text":
    from rich.text import Text

    return Text(printable(text, limit), style=style)


def forgiving_streams() -> None:
    """Let a terminal whose encoding lacks a character show ``?`` for it instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
