"""What this node can tell of its site at a glance: the hosts, how they are, and the copies of what is held here.

It only looks. What it costs does not grow with the number of held jobs, but for `Overview.jobs`, which lists them.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pullprint import __version__
from pullprint.mesh.peers import NotAPeer, Peers, PeerState
from pullprint.model.placement import Role, others_wanted
from pullprint.model.states import ENDED
from pullprint.model.votes import Attempt
from pullprint.node.holder import Holder
from pullprint.node.site import Site
from pullprint.vault.index import Index
from pullprint.vault.record import Record
from pullprint.wire.views import MeshJobView, MeshNodeView, MeshView

_SHORT = 8
"""Characters of the id of a node that has no name here any more."""


@dataclass(frozen=True, slots=True)
class Group:
    """Jobs in the same state at the same holders."""

    state: str
    holders: tuple[str, ...]
    """Empty in the first generation."""
    jobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Copies:
    """Who holds a job."""

    names: tuple[str, ...]
    """This host first, if it does."""
    awake: int


@dataclass(frozen=True, slots=True)
class Census:
    """All jobs of the index, counted."""

    jobs: dict[str, int]
    """By state."""
    placed: int
    short: int
    """Jobs that have not ended and lack copies."""
    bytes: int
    """Of the documents that are held."""

    @property
    def held(self) -> int:
        """Jobs that have not ended."""
        return self.placed + self.short


class Overview:
    """The site as this node sees it."""

    def __init__(
        self, holder: Holder, site: Site, name: str, peers: Callable[[], Peers | None], role: Role,
        room: Callable[[], int],
    ) -> None:  # fmt: skip
        """*peers* is None while there is no mesh; *room* is how many bytes this node would still store for others."""
        self._holder = holder
        self._site = site
        self._name = name
        self._peers = peers
        self._role = role
        self._room = room

    async def mesh(self, *, jobs: bool) -> MeshView:
        """The site's nodes; with *jobs*, each that is held here. Raises NotJoined."""
        own, peers = self._site.membership.node, self._peers()
        census = await self.census()
        owed = await self._holder.read(Index.news_waiting)
        here = MeshNodeView(node=own, name=self._name, role=self._role, here=True, awake=True, version=__version__,
                            held=census.held, room=self._room())  # fmt: skip
        others = [_node(state, owed.get(state.peer.node, 0)) for state in peers.states()] if peers else []
        return MeshView(
            site=self._site.membership.site,
            revision=peers.revision if peers else 0,
            nodes=(here, *others),
            jobs=await self.jobs() if jobs else (),
            placed=census.placed,
            short=census.short,
        )

    async def jobs(self) -> tuple[MeshJobView, ...]:
        """Each job that is held here, newest first."""
        own = self._site.membership.node
        return tuple(
            MeshJobView(
                id=record.id, state=record.state, generation=record.generation, holders=record.voters(own),
                promised=record.vote.promised, attempts=tuple(map(self._attempt, record.vote.attempts)),
            )
            for record in await self._holder.read(Index.jobs)
        )  # fmt: skip

    async def census(self) -> Census:
        """One look at the index, grouped by it."""
        groups = await self._holder.read(groups_of)
        known, wanted = self._known(), self._wanted()
        jobs: dict[str, int] = {}
        counts = {True: 0, False: 0}
        for group in groups:
            jobs[group.state] = jobs.get(group.state, 0) + group.jobs
            if group.state not in ENDED:
                copies = sum(holder in known for holder in group.holders) or 1
                counts[copies >= wanted] += group.jobs
        size = sum(group.bytes for group in groups if group.state not in ENDED)
        return Census(jobs, counts[True], counts[False], size)

    def copies(self, record: Record) -> Copies:
        """Who holds *record*; nobody that can be named while this host belongs to no site."""
        if not self._site.member:
            return Copies((), 0)
        own, peers = self._site.membership.node, self._peers()
        holders = sorted(record.voters(own), key=lambda holder: holder != own)
        awake = sum(holder == own or (peers is not None and peers.awake(holder)) for holder in holders)
        return Copies(tuple(map(self.name, holders)), awake)

    def name(self, node: str) -> str:
        """What people call a node of the site."""
        if self._site.member and node == self._site.membership.node:
            return self._name
        with suppress(NotAPeer):
            if peers := self._peers():
                return peers.peer(node).name
        return node[:_SHORT]

    def peers(self) -> tuple[int, int]:
        """How many other nodes the site has, and how many of them are awake."""
        peers = self._peers()
        states = list(peers.states()) if peers else []
        return len(states), sum(state.awake for state in states)

    def _known(self) -> set[str]:
        """Nodes whose copies count: those that were shut out are none of them."""
        peers = self._peers()
        own = {self._site.membership.node} if self._site.member else set()
        return own | {peer.node for peer in peers.others()} if peers else own

    def _wanted(self) -> int:
        """Copies that a job of this node should have, at a site of this size."""
        peers = self._peers()
        others = sum(peer.role is not Role.CLIENT for peer in peers.others()) if peers else 0
        itself = 0 if self._role is Role.CLIENT and others else 1
        return max(1, itself + min(others, others_wanted(self._role)))

    def _attempt(self, attempt: Attempt) -> str:
        """Such as «3 by reception: nothing sent»."""
        text = f"{attempt.ballot} by {self.name(attempt.releaser)}" if attempt.releaser else str(attempt.ballot)
        return f"{text}: nothing sent" if attempt.nothing_sent else text


def groups_of(index: Index) -> list[Group]:
    """All jobs of *index*, grouped: one query, whose answer is as long as there are kinds of jobs."""
    rows = index._db.execute("SELECT state, holders, count(*), total(size) FROM job GROUP BY state, holders")
    return [Group(str(state), tuple(json.loads(holders)), int(n), int(size)) for state, holders, n, size in rows]


def _node(state: PeerState, owed: int) -> MeshNodeView:
    peer, hello = state.peer, state.hello
    return MeshNodeView(
        node=peer.node, name=peer.name, role=peer.role, awake=state.awake,
        endpoint=peer.endpoints[0] if peer.endpoints else "", version=hello.version if hello else "",
        held=hello.load if hello else 0, room=hello.room if hello else 0, lag=state.lag if state.awake else None,
        owed=owed, trouble="" if state.awake else _why(state),
    )  # fmt: skip


def _why(state: PeerState) -> str:
    """Since when it is silent, and why, as far as is known."""
    if state.silent is None:
        return state.trouble or "It has not answered this host yet."
    minutes = int(state.silent // 60)
    since = f"Silent for {minutes} min." if minutes else f"Silent for {int(state.silent)} s."
    return f"{since} {state.trouble}".rstrip()
