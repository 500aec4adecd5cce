"""The directives of cupsd.conf(5) on which it depends whether documents stay readable and jobs get lost.

Also imported by the command, so it stands on the standard library.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pullprint.base.text import printable

CONFIGURATION = Path("/etc/cups/cupsd.conf")
FILE_LIMIT = 1 << 20
_BLANKS = " \t\v\f"
"""What cupsd takes for a blank within a line."""
_BEGIN = (
    "# pullprint begin: what `pullprint doctor --repair` set, so that no document stays readable and no job is lost"
)
_END = "# pullprint end"
_BLOCK = re.compile(r"^\n?# pullprint begin[^\n]*\n.*?^# pullprint end[^\n]*\n?", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one directive should be."""

    name: str
    default: str
    """What cupsd takes where it is not set."""
    wanted: str
    is_right: Callable[[str], bool]
    right: str
    """What follows of a right ``{value}``."""
    wrong: str
    leaks: bool = False
    """Wrong, it leaves documents readable; otherwise it may lose jobs."""

    @property
    def line(self) -> str:
        """The directive as it should be."""
        return f"{self.name} {self.wanted}"

    def value(self, settings: Mapping[str, str]) -> str:
        """What *settings*, by lower-case name, have of it."""
        return settings.get(self.name.lower(), self.default)


RULES = (
    Rule(
        "PreserveJobFiles", "86400", "No", lambda value: value.lower() in {"no", "off", "false", "0"},
        "cupsd deletes documents as soon as they are handed over.",
        "cupsd keeps every printed document readable on disk (PreserveJobFiles {value}).", leaks=True,
    ),
    Rule(
        "JobRetryLimit", "5", "100000", lambda value: _whole(value) == 0 or _whole(value) >= 100,
        "cupsd tries a job {value} times.",
        "cupsd gives a job up after {value} tries, also when pullprintd was only away for a while.",
    ),
    Rule(
        "MaxJobTime", "10800", "0", lambda value: _whole(value) == 0,
        "cupsd lets a job wait for as long as it must.",
        "cupsd cancels a job after {value} seconds, also while pullprintd is away.",
    ),
    Rule(
        "DirtyCleanInterval", "30", "0", lambda value: _whole(value) == 0,
        "cupsd writes new jobs to disk at once.",
        "cupsd forgets jobs of the last {value} seconds when it is killed.",
    ),
)  # fmt: skip


def parse_configuration(text: str) -> dict[str, str]:
    """Top-level directives of a cupsd.conf(5), the last of a name counts; sections are passed over."""
    found: dict[str, str] = {}
    depth = 0
    for line in re.split(r"\r\n?|\n", text):
        words = line.partition("#")[0].strip(_BLANKS)
        if words.startswith("</"):
            depth = max(0, depth - 1)
        elif words.startswith("<"):
            depth += 1
        elif words and not depth:
            name, *value = re.split(f"[{_BLANKS}]+", words, maxsplit=1)
            found[name.lower()] = printable("".join(value), 200)
    return found


def wrong(text: str) -> list[Rule]:
    """The rules that a configuration breaks."""
    settings = parse_configuration(text)
    return [rule for rule in RULES if not rule.is_right(rule.value(settings))]


def repaired(text: str) -> str:
    """A configuration that breaks no rule: what is wrong in *text* is set in a block of ours at its end, where it
    counts. What is right stays as it is, also a block of ours."""
    if not wrong(text):
        return text
    own = _BLOCK.sub("", text)
    missing = [rule.line for rule in wrong(own)]
    if not missing:
        return own
    return own + ("" if own.endswith("\n") or not own else "\n") + "\n" + "\n".join([_BEGIN, *missing, _END]) + "\n"


def _whole(value: str) -> int:
    match = re.match(r"[0-9]{1,9}", value)
    return int(match[0]) if match else 0
