"""What may stand next on a command line: ``pullprint __complete``, which the shells of packaging/completion ask.

It is read off the parser itself, so the shells need to know nothing of the command. Each line of the answer is a
value, a tab, and what is to be said of it; a line that begins with a tab asks the shell for names of files. An answer
is never text that a shell runs: words go in as arguments and come out as lines, and what pullprintd says is checked.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pullprint.base.errors import PullprintError
from pullprint.base.text import printable
from pullprint.cli import answers
from pullprint.cli.arguments import JOB, parser
from pullprint.cli.client import Client
from pullprint.model.states import ENDED, State

SECONDS = 1.0
"""How long a shell may wait for pullprintd."""
FILES = "\tfiles"
_SAID = 60
"""Characters of what is said of a value."""
_SHORT = 8
_BARE = re.compile(r"[\w./+-]+")
_BREAKS = re.compile(r"[^\w./+,-]")
"""What bash would take for something else than a part of the word."""
_IN_DOUBLE_QUOTES = re.compile(r'["$`\\]')


class Offer(NamedTuple):
    """A word that may stand there."""

    value: str
    said: str = ""


class Typed(NamedTuple):
    """A command line as far as it is typed."""

    words: list[str]
    """As the command would get them; the last is unfinished, and may be empty."""
    quote: str
    """The quotation mark that is still open; empty for none."""


def complete(arguments: Sequence[str]) -> None:
    """Write what may stand next; nothing where that cannot be known, and never an error.

    *arguments* are ``words`` and what follows the command's name, the unfinished word last; or ``line`` and a command
    line up to the cursor, of which bash cannot tell the words without running what is in them.
    """
    how, *words = arguments or ["words"]
    if how == "line":
        typed = split(" ".join(words))
        current = typed.words[-1]
        if current.startswith("--"):
            current = current.partition("=")[2] or current
        found = [
            offer if offer == Offer(FILES) else Offer(quoted(offer.value, typed.quote), offer.said)
            for offer in offers(typed.words[1:])
            if offer.value.startswith(current) or offer == Offer(FILES)
        ]
    else:
        found = list(offers(words))
    for value, said in found:
        sys.stdout.write(f"{value}\t{said}\n" if said else f"{value}\n")


def offers(words: Sequence[str]) -> Iterator[Offer]:
    """What may stand in the place of the last of *words*."""
    *before, current = words or [""]
    place = _Place(parser())
    for word in before:
        if not place.go(word):
            return
    option, equals, _ = current.partition("=")
    if place.awaits:
        yield from place.values(place.awaits)
    elif equals and option.startswith("--"):
        action = place.options.get(option)
        if action and action.nargs != 0:
            yield from place.values(action)
    elif current.startswith("-"):
        yield from place.flags()
    else:
        positional = place.positional()
        found = list(place.values(positional)) if positional else []
        yield from found or ([] if current else place.flags())


class _Place:
    """Where on the command line the cursor is."""

    def __init__(self, line: argparse.ArgumentParser) -> None:
        self._line = line
        self._names: list[str] = []
        self._given: list[str] = []
        self._used: set[str] = set()
        self._socket: Path = line.get_default("socket")
        self.awaits: argparse.Action | None = None
        """The option whose value comes next."""

    @property
    def options(self) -> dict[str, argparse.Action]:
        return self._line._option_string_actions

    def go(self, word: str) -> bool:
        """Past *word*; False where no such word may stand."""
        if self.awaits:
            self._take(self.awaits, word)
            self.awaits = None
            return True
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            action = self.options.get(name)
            if action and equals:
                self._take(action, value)
            elif action and action.nargs != 0:
                self.awaits = action
            elif action:
                self._used.add(action.dest)
            return True
        positional = self.positional()
        if isinstance(positional, argparse._SubParsersAction):
            if word not in positional.choices:
                return False
            self._line = positional.choices[word]
            self._names.append(word)
            return True
        self._given.append(word)
        return True

    def _take(self, action: argparse.Action, value: str) -> None:
        if action.dest == "socket":
            self._socket = Path(value).expanduser()
        if not isinstance(action, argparse._AppendAction):
            self._used.add(action.dest)

    def positional(self) -> argparse.Action | None:
        """Which positional argument comes next."""
        actions = self._line._get_positional_actions()
        at = len(self._given)
        if at < len(actions):
            return actions[at]
        return actions[-1] if actions and actions[-1].nargs in ("*", "+") else None

    def flags(self) -> Iterator[Offer]:
        """Options that were not given yet."""
        for name, action in self.options.items():
            if action.help != argparse.SUPPRESS and action.dest not in self._used:
                yield Offer(name, (action.help or "").replace("%%", "%"))

    def values(self, action: argparse.Action) -> Iterator[Offer]:
        """What *action* takes."""
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                yield Offer(choice.dest, choice.help or "")
        elif action.choices:
            yield from map(Offer, action.choices)
        elif action.type is Path:
            yield Offer(FILES)
        elif find := _FIND.get(" ".join([*self._names, action.dest])) or _FIND.get(action.dest):
            with suppress(PullprintError, OSError, ValueError):
                yield from (offer for offer in find(self) if offer.value not in self._given)

    def ask(self, target: str) -> object:
        """pullprintd's answer."""
        return Client(self._socket).get(target, SECONDS)

    def jobs(self, states: Iterable[str] | None = None) -> Iterator[Offer]:
        """Jobs of the caller that have not ended, or those in one of *states*."""
        for job in answers.several(answers.Job.from_json, self.ask("/v1/jobs")):
            fits = job.state not in ENDED if states is None else job.state in states
            if fits and JOB.fullmatch(job.id) and not any(job.id.startswith(word) for word in self._given):
                yield Offer(job.id[:_SHORT], printable(job.title, _SAID))

    def printers(self) -> Iterator[Offer]:
        """Printers of this site whose names can be typed."""
        for printer in answers.several(answers.Printer.from_json, self.ask("/v1/printers")):
            if printer.name and printer.name == printable(printer.name, 255):
                yield Offer(printer.name, printable(printer.place, _SAID))


def _queues(_: _Place) -> Iterator[Offer]:
    from pullprint.cli.queues import Cups, is_ours

    return (
        Offer(name) for name, uri in Cups(seconds=SECONDS).queues().items() if is_ours(uri) and _BARE.fullmatch(name)
    )


_FIND: dict[str, Callable[[_Place], Iterable[Offer]]] = {
    "job": _Place.jobs,
    "release job": lambda place: place.jobs({State.HELD, State.UNCERTAIN}),
    "settle job": lambda place: place.jobs({State.UNCERTAIN}),
    "printer": _Place.printers,
    "queue remove name": _queues,
}
"""By an argument's name, or that and the subcommand's."""


def split(line: str) -> Typed:
    """*line* into words as bash does it; nothing is expanded."""
    words, word, quote, escaped, begun = [], "", "", False, False
    for char in line:
        if escaped:
            word += char if not quote or char in '"$`\\' else f"\\{char}"
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = begun = True
        elif char == quote:
            quote = ""
        elif char in "\"'" and not quote:
            quote, begun = char, True
        elif char in " \t\n" and not quote:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + char, True
    return Typed([*words, word], quote)


def quoted(value: str, quote: str) -> str:
    """*value* as bash reads it where *quote* is open."""
    if quote == "'":
        return value.replace("'", "'\\''")
    if quote:
        # No backslash keeps an exclamation mark from being history there.
        return _IN_DOUBLE_QUOTES.sub(lambda found: f"\\{found[0]}", value).replace("!", '"\\!"')
    return _BREAKS.sub(lambda found: f"\\{found[0]}", value)
