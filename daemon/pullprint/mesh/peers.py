"""The other nodes of the site: who they are by the organisation's word, where they listen, and how they are."""

import asyncio
import ipaddress
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pullprint.base.bell import Bell
from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.base.files import replace
from pullprint.wire.mesh import ENDPOINTS_LIMIT, ROSTER_LIMIT, Hello, Peer, Roster, verify_roster

AWAKE = 30.0
"""Seconds since its last answer for which a peer counts as awake, at a site where all can be asked so often."""

log = logging.getLogger(__name__)


class NotAPeer(PullprintError):
    """The host {node} does not belong to this site, or no longer, and was refused. Held jobs are safe. If it should
    belong to it, an admin lets it join again."""

    code = "not-a-peer"
    http_status = 403


@dataclass(frozen=True, slots=True)
class PeerState:
    """How a peer is, for people and for whoever chooses among them."""

    peer: Peer
    awake: bool
    lag: float | None
    """Seconds that its last hello took."""
    silent: float | None
    """Seconds since it last answered anything; None: it never did."""
    hello: Hello | None
    """Its last."""
    trouble: str
    """Why it did not answer the last time; empty: it did."""


@dataclass(slots=True)
class _Known:
    worked: str = ""
    hints: list[str] = field(default_factory=list)
    heard: float | None = None
    lag: float | None = None
    hello: Hello | None = None
    trouble: str = ""


class Peers:
    """The latest roster, and what was learned about those in it."""

    def __init__(self, state_dir: Path, own_node: str, clock: Clock) -> None:
        self._path = state_dir / "roster.jws"
        self._own = own_node
        self._clock = clock
        self._roster: Roster | None = None
        self._token = ""
        self._kept = -1
        self._peers: dict[str, Peer] = {}
        self._revoked: frozenset[str] = frozenset()
        self._known: dict[str, _Known] = {}
        self._keeping = asyncio.Lock()
        self.patience = AWAKE
        """Seconds for which an answer counts: longer where there are so many that each is asked less often."""
        self.changed = Bell()
        """Rings when there is a new roster."""
        self.awoke = Bell()
        """Rings when a peer has answered that had not lately."""
        self.hinted = Bell()
        """Rings when a peer that does not answer may be found elsewhere."""

    def load(self, pin: bytes, organisation: str, site: str) -> None:
        """Read what was kept. Blocking; a file that cannot be used counts as none."""
        try:
            with self._path.open(encoding="ascii") as file:
                token = file.read(ROSTER_LIMIT + 1)
            roster = verify_roster(token, pin, organisation, site)
        except FileNotFoundError:
            return
        except (PullprintError, OSError, ValueError) as error:
            # The cloud and each peer has it, too.
            log.warning("the list of the site's hosts cannot be used: %s", error)
            return
        self._kept = roster.revision
        self._take(roster, token)

    async def accept(self, token: str, pin: bytes, organisation: str, site: str) -> bool:
        """Take the roster in *token* if it is newer. It counts at once, and is durable when this returns.

        Raises StatementRefused.
        """
        if token == self._token and self._kept == self.revision:
            return False
        roster = await asyncio.to_thread(verify_roster, token, pin, organisation, site)
        newer = self._roster is None or roster.revision > self.revision
        if newer:
            self._take(roster, token)
            log.info("revision %d of the list of the site's hosts: %d, %d revoked", *self._counts(roster))
        await self._keep()
        return newer

    @property
    def revision(self) -> int:
        """Of the roster; 0 without one."""
        return self._roster.revision if self._roster else 0

    @property
    def token(self) -> str:
        """The roster's JWS; empty without one."""
        return self._token

    def peer(self, node: str) -> Peer:
        """The entry of *node*, another node of this site. Raises NotAPeer."""
        peer = self._peers.get(node)
        if peer is None:
            raise NotAPeer(node=node)
        return peer

    def others(self) -> list[Peer]:
        """All peers, in the roster's order."""
        return list(self._peers.values())

    def revoked(self, node: str) -> bool:
        """Whether *node*, which may be this one, was shut out."""
        return node in self._revoked

    def hint(self, node: str, endpoint: str) -> None:
        """*node* is said to listen at *endpoint*; by whom, nobody knows. Raises NotAPeer."""
        self.peer(node)
        known = self._known[node]
        if not split_endpoint(endpoint) or endpoint in known.hints:
            return
        known.hints.insert(0, endpoint)
        del known.hints[ENDPOINTS_LIMIT:]
        if not self.awake(node):
            self.hinted.ring()

    def endpoints(self, node: str) -> list[str]:
        """Where to try to reach *node*, the likeliest first. Raises NotAPeer."""
        peer, known = self.peer(node), self._known[node]
        return [each for each in dict.fromkeys((known.worked, *peer.endpoints, *known.hints)) if split_endpoint(each)]

    def worked(self, node: str, endpoint: str) -> None:
        """*node* has proved itself at *endpoint*."""
        if known := self._known.get(node):
            known.worked = endpoint

    def heard(self, node: str, seconds: float | None = None, hello: Hello | None = None) -> None:
        """*node* has answered; its *hello* took so many *seconds*, if it was one."""
        if known := self._known.get(node):
            if not self.awake(node):
                self.awoke.ring()
            known.heard, known.trouble = self._clock.monotonic(), ""
            known.lag = known.lag if seconds is None else seconds
            known.hello = hello or known.hello

    def missed(self, node: str, why: str) -> None:
        """*node* has not answered."""
        if known := self._known.get(node):
            known.trouble = why

    def awake(self, node: str) -> bool:
        """Whether *node* has answered lately."""
        known = self._known.get(node)
        return known is not None and known.heard is not None and self._clock.monotonic() - known.heard < self.patience

    def state(self, node: str) -> PeerState:
        """What is known of *node*. Raises NotAPeer."""
        peer, known = self.peer(node), self._known[node]
        silent = None if known.heard is None else self._clock.monotonic() - known.heard
        return PeerState(peer, self.awake(node), known.lag, silent, known.hello, known.trouble)

    def states(self) -> Iterator[PeerState]:
        """What is known of each."""
        return (self.state(node) for node in self._peers)

    def _take(self, roster: Roster, token: str) -> None:
        self._roster, self._token = roster, token
        self._revoked = frozenset(roster.revoked)
        shut_out = self._revoked | {self._own}
        self._peers = {peer.node: peer for peer in roster.peers if peer.node not in shut_out}
        self._known = {node: self._known.get(node) or _Known() for node in self._peers}
        self.changed.ring()

    def _counts(self, roster: Roster) -> tuple[int, int, int]:
        return roster.revision, len(self._peers), len(self._revoked)

    async def _keep(self) -> None:
        async with self._keeping:
            revision, token = self.revision, self._token
            if self._kept >= revision:
                return
            try:
                await asyncio.to_thread(replace, self._path, token.encode("ascii"))
            except OSError as error:
                # Whoever is shut out is shut out all the same; it is tried again when the roster comes again.
                log.error("the list of the site's hosts cannot be kept: %s", error.strerror)
            else:
                self._kept = revision


def split_endpoint(endpoint: str) -> tuple[str, int] | None:
    """Address and port in *endpoint* (`wire.mesh.Endpoint`), unless no node can listen there."""
    host, _, port = endpoint.rpartition(":")
    try:
        address, number = ipaddress.ip_address(host.strip("[]")), int(port)
    except ValueError:
        return None
    if address.is_multicast or address.is_unspecified or not 0 < number < 1 << 16:
        return None
    return str(address), number


def make_endpoint(host: str, port: int) -> str:
    """The endpoint of *port* at the address *host*."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
