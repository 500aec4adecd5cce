"""Which nodes hold a job."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

HOLDERS = 3
"""Copies of a job, if the site has so many nodes that hold."""


class Role(StrEnum):
    """What a node is to its site."""

    SUPER = "super"
    """Always on: preferred."""
    NORMAL = "normal"
    CLIENT = "client"
    """Comes and goes, such as a laptop: holds nothing once three others do."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a node that might hold a job."""

    node: str
    role: Role
    awake: bool
    room: int
    """Bytes that it would still store."""
    load: int
    """Jobs that it holds."""


def rank(candidates: Iterable[Candidate], size: int, without: Collection[str] = ()) -> list[str]:
    """The nodes that may hold a job of *size* bytes, best first: awake before asleep, super nodes before others, then
    by load. Clients, and whoever is in *without*, may not."""
    fit = [c for c in candidates if c.role is not Role.CLIENT and c.room >= size and c.node not in without]
    return [c.node for c in sorted(fit, key=lambda c: (not c.awake, c.role is not Role.SUPER, c.load, c.node))]


def others_wanted(origin: Role) -> int:
    """How many holders besides the *origin*, which is none itself if it is a client."""
    return HOLDERS if origin is Role.CLIENT else HOLDERS - 1
