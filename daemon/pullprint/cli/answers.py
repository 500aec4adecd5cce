"""What pullprintd answers, checked and frozen; the same fields as `wire.views`, without the time that pydantic takes to
load. A test compares the two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from pullprint.base.errors import PullprintError
from pullprint.model.facts import Facts
from pullprint.model.ticket import Ticket

Answer = TypeVar("Answer")


class Malformed(ValueError):
    """An answer lacks a field, or a field has the wrong type."""


class _Fields:
    """Typed look-ups in one JSON object; a default stands for a field that an older daemon does not send."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise Malformed("an object is expected")
        self.raw: Mapping[str, object] = value

    def text(self, name: str, default: str | None = None) -> str:
        value = self.raw.get(name, default)
        if not isinstance(value, str):
            raise Malformed(f"{name} is not a text")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.raw.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Malformed(f"{name} is not a number")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        return int(self.number(name, default))

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.raw.get(name, default)
        if not isinstance(value, bool):
            raise Malformed(f"{name} is not true or false")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.raw.get(name, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise Malformed(f"{name} is not a list of texts")
        return tuple(value)


@dataclass(frozen=True, slots=True)
class Job:
    """`wire.views.JobView`."""

    raw: Mapping[str, object]
    """As it came, for ``--json``."""
    id: str
    title: str
    owner: str
    submitter: str
    host: str
    queue: str
    node: str
    state: str
    sentence: str
    content_type: str
    size: int
    ticket: Ticket
    facts: Facts | None
    created: int
    expires: int
    direct_printer: str
    claim_code: str
    doubtful: tuple[int, ...]
    copies: int
    awake: int
    holders: tuple[str, ...]

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        doubtful = f.raw.get("doubtful", [])
        if not isinstance(doubtful, list) or not all(isinstance(ballot, int) for ballot in doubtful):
            raise Malformed("doubtful is not a list of numbers")
        facts = f.raw.get("facts")
        return cls(
            raw=f.raw,
            **{name: f.text(name) for name in _JOB_TEXTS},
            size=f.count("size"),
            ticket=_ticket(f.raw.get("ticket")),
            facts=Facts.from_dict(facts) if isinstance(facts, dict) else None,
            created=f.count("created"),
            expires=f.count("expires"),
            direct_printer=f.text("direct_printer", ""),
            claim_code=f.text("claim_code", ""),
            doubtful=tuple(doubtful),
            copies=f.count("copies", 0),
            awake=f.count("awake", 0),
            holders=f.texts("holders"),
        )


_JOB_TEXTS = (
    "id", "title", "owner", "submitter", "host", "queue", "node", "state", "sentence", "content_type",
)  # fmt: skip


def _ticket(value: object) -> Ticket:
    f = _Fields(value)
    options = f.raw.get("options")
    if not isinstance(options, list):
        raise Malformed("a ticket has options")
    pairs: list[tuple[str, str]] = []
    for pair in options:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise Malformed("an option is a pair of texts")
        pairs.append((pair[0], pair[1]))
    return Ticket(copies=f.count("copies"), options=tuple(pairs))


@dataclass(frozen=True, slots=True)
class Step:
    """`wire.views.StepView`."""

    raw: Mapping[str, object]
    at: float
    host: str
    event: str
    text: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(f.raw, f.number("at"), f.text("host"), f.text("event"), f.text("text"))


@dataclass(frozen=True, slots=True)
class Printer:
    """`wire.views.PrinterView`."""

    raw: Mapping[str, object]
    id: str
    name: str
    place: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(f.raw, f.text("id"), f.text("name"), f.text("place", ""))


@dataclass(frozen=True, slots=True)
class Finding:
    """`wire.views.FindingView`."""

    raw: Mapping[str, object]
    level: str
    what: str
    advice: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(f.raw, f.text("level"), f.text("what"), f.text("advice", ""))


@dataclass(frozen=True, slots=True)
class Slept:
    """`wire.loans.SleepView`."""

    raw: Mapping[str, object]
    lent: int
    own: int
    sentence: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(raw=f.raw, lent=f.count("lent"), own=f.count("own"), sentence=f.text("sentence"))


@dataclass(frozen=True, slots=True)
class Status:
    """`wire.views.StatusView`."""

    raw: Mapping[str, object]
    version: str
    joined: bool
    node: str
    name: str
    organisation: str
    site: str
    cloud: str
    connected: bool
    connected_since: float
    sentence: str
    held: int
    unclaimed: int
    uncertain: int
    stored_bytes: int
    unreported: int
    cloud_version: str
    config_trouble: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(
            raw=f.raw,
            version=f.text("version"),
            joined=f.flag("joined"),
            connected=f.flag("connected"),
            connected_since=f.number("connected_since", 0.0),
            node=f.text("node", ""),
            name=f.text("name", ""),
            organisation=f.text("organisation", ""),
            site=f.text("site", ""),
            cloud=f.text("cloud", ""),
            sentence=f.text("sentence", ""),
            held=f.count("held", 0),
            unclaimed=f.count("unclaimed", 0),
            uncertain=f.count("uncertain", 0),
            stored_bytes=f.count("stored_bytes", 0),
            unreported=f.count("unreported", 0),
            cloud_version=f.text("cloud_version", ""),
            config_trouble=f.text("config_trouble", ""),
        )


@dataclass(frozen=True, slots=True)
class Login:
    """`wire.views.LoginView`."""

    raw: Mapping[str, object]
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int
    state: str
    user: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(
            raw=f.raw,
            user_code=f.text("user_code"),
            verification_uri=f.text("verification_uri"),
            verification_uri_complete=f.text("verification_uri_complete"),
            expires_in=f.count("expires_in"),
            interval=f.count("interval"),
            state=f.text("state", "pending"),
            user=f.text("user", ""),
        )


@dataclass(frozen=True, slots=True)
class MeshNode:
    """`wire.views.MeshNodeView`."""

    raw: Mapping[str, object]
    node: str
    name: str
    role: str
    here: bool
    awake: bool
    endpoint: str
    version: str
    held: int
    room: int
    lag: float | None
    owed: int
    trouble: str

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(
            raw=f.raw,
            node=f.text("node"),
            name=f.text("name"),
            role=f.text("role", ""),
            here=f.flag("here"),
            awake=f.flag("awake"),
            endpoint=f.text("endpoint", ""),
            version=f.text("version", ""),
            held=f.count("held", 0),
            room=f.count("room", 0),
            lag=None if f.raw.get("lag") is None else f.number("lag"),
            owed=f.count("owed", 0),
            trouble=f.text("trouble", ""),
        )


@dataclass(frozen=True, slots=True)
class MeshJob:
    """`wire.views.MeshJobView`."""

    raw: Mapping[str, object]
    id: str
    state: str
    generation: int
    holders: tuple[str, ...]
    promised: int
    attempts: tuple[str, ...]

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(
            raw=f.raw,
            id=f.text("id"),
            state=f.text("state"),
            generation=f.count("generation"),
            holders=f.texts("holders"),
            promised=f.count("promised", 0),
            attempts=f.texts("attempts"),
        )


@dataclass(frozen=True, slots=True)
class Mesh:
    """`wire.views.MeshView`."""

    raw: Mapping[str, object]
    site: str
    revision: int
    nodes: tuple[MeshNode, ...]
    jobs: tuple[MeshJob, ...]
    placed: int
    short: int

    @classmethod
    def from_json(cls, value: object) -> Self:
        f = _Fields(value)
        return cls(
            raw=f.raw,
            site=f.text("site"),
            revision=f.count("revision", 0),
            nodes=tuple(several(MeshNode.from_json, f.raw.get("nodes"))),
            jobs=tuple(several(MeshJob.from_json, f.raw.get("jobs", []))),
            placed=f.count("placed", 0),
            short=f.count("short", 0),
        )


def one(read: Callable[[object], Answer], value: object) -> Answer:
    """*value* as the answer that *read* makes of it; raises Malformed, also for what a model refuses."""
    try:
        return read(value)
    except PullprintError as error:
        raise Malformed(error.sentence) from None


def several(read: Callable[[object], Answer], value: object) -> list[Answer]:
    """*value* as a list of such answers; raises Malformed."""
    if not isinstance(value, list):
        raise Malformed("a list is expected")
    return [one(read, item) for item in value]
