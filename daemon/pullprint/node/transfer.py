"""Bringing the sealed file of a job to a peer, and knowing which peers are not worth trying just now."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pullprint.base.clock import Clock
from pullprint.mesh.client import PeerAway, PeerRefused, PeerSilent
from pullprint.mesh.handlers import Interrupted
from pullprint.mesh.peers import NotAPeer, Peers
from pullprint.node.metrics import Counts
from pullprint.vault.generation import measure
from pullprint.vault.parts import seal_part
from pullprint.vault.record import Record
from pullprint.vault.sealing import Party
from pullprint.wire.mesh import FIRST_TABLE, Accepted, Offer, Received
from pullprint.wire.node import PartyKey
from pullprint.wire.types import Message

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds for the answer to an offer."""
BAD_TIME, BACK_TIME = 30.0, 5.0
"""Seconds for which nothing more is sent to a peer that failed; and to one that only was away, and is back."""
_ITS_OWN = frozenset({"not-a-holder", "no-room", "busy", "unexpected"})
"""Refusals that the next job would get, too."""

Answer = TypeVar("Answer", bound=Message)


class Mesh(Protocol):
    """What of `mesh.client` is needed here."""

    async def ask(
        self, node: str, path: str, message: Message | None, answer: type[Answer], timeout: float = ...
    ) -> Answer: ...
    async def tell(self, node: str, path: str, message: Message, timeout: float = ...) -> None: ...
    async def send_copy(
        self, node: str, job: str, path: Path, offset: int, size: int, gone: Callable[[int], None] = ...
    ) -> Received: ...


@dataclass(frozen=True, slots=True)
class Copy:
    """The sealed file that is to be sent."""

    job: str
    path: Path
    size: int
    digest: bytes
    expires: int


class Transfers:
    """Sends copies to peers, so many at a time."""

    def __init__(self, at_once: int, clock: Clock, counts: Counts | None = None) -> None:
        self._clock = clock
        self._counts = counts or Counts()
        self._turns = asyncio.Semaphore(at_once)
        self._failed: dict[str, tuple[float, bool]] = {}
        """By peer: when it failed, and whether by being away."""
        self._peers: Peers | None = None
        self._client: Mesh | None = None

    def attach(self, peers: Peers | None, client: Mesh | None) -> None:
        """What to send with, as long as there is any."""
        self._peers, self._client = peers, client

    def is_bad(self, node: str) -> bool:
        """Whether *node* failed lately. One that was away, and has greeted since, is tried again soon."""
        failed, away = self._failed.get(node, (-BAD_TIME, False))
        since = self._clock.monotonic() - failed
        if since >= BAD_TIME:
            return False
        try:
            silent = None if self._peers is None else self._peers.state(node).silent
        except NotAPeer:
            silent = None
        return not (away and since > BACK_TIME and silent is not None and silent < since)

    async def give(self, node: str, record: Record, path: Path) -> Party | None:
        """*node*, which has a durable copy of *record*, whose file is at *path*, whatever generation that is of; None
        when it could not be had. Raises OSError."""
        if self._client is None:
            return None
        size, digest = await asyncio.to_thread(measure, path)
        return await self.send(node, Copy(record.id, path, size, digest, record.expires))

    async def send(self, node: str, copy: Copy) -> Party | None:
        """*node*, which has a durable copy now; None when it could not be had."""
        if self._client is None or self.is_bad(node):
            return None
        offer = Offer(size=copy.size, digest=copy.digest, expires=copy.expires)
        have = -1
        try:
            while True:
                path = f"/mesh/v1/copies/{copy.job}"
                accepted = await self._client.ask(node, path, offer, Accepted, timeout=PATIENCE)
                if not have < accepted.have <= copy.size:
                    raise ValueError("it does not keep what it is sent")
                have = accepted.have
                if have < copy.size and not await self._sent(self._client, node, copy, have):
                    continue  # some of it may have arrived, and then the rest may, too
                return await asyncio.to_thread(_party, node, accepted.key)
        except PeerAway as error:
            self._pass_over(node, error)
        except PeerRefused as error:
            if error.code in _ITS_OWN:
                self._pass_over(node, error)
            else:
                log.info("%s takes no copy of %s: %s", node, copy.job, error.code)
        except (NotAPeer, ValueError, OSError) as error:
            log.info("%s gets no copy of %s: %s", node, copy.job, error)
        return None

    async def _sent(self, client: Mesh, node: str, copy: Copy, offset: int) -> bool:
        """Send *copy* from *offset* on; False when it broke off after some of it was gone.

        Raises PeerAway, PeerRefused, NotAPeer, ValueError, OSError.
        """
        gone, sent = 0, False

        def moved(count: int) -> None:
            nonlocal gone
            gone += count

        async with self._turns:
            try:
                received = await client.send_copy(node, copy.job, copy.path, offset, copy.size, moved)
                sent = True
            except PeerSilent:
                raise
            except (PeerAway, PeerRefused) as error:
                if gone and error.code in (PeerAway.code, Interrupted.code):
                    return False
                raise
            finally:
                self._counts.transfer("sent", gone, done=sent)
        if (received.size, received.digest) != (copy.size, copy.digest):
            raise ValueError("it says that it has something else")
        return True

    def _pass_over(self, node: str, error: Exception) -> None:
        log.info("%s is passed over for %d s: %s", node, BAD_TIME, error)
        self._failed = {each: failed for each, failed in self._failed.items() if self.is_bad(each)}
        self._failed[node] = self._clock.monotonic(), isinstance(error, PeerAway)


def _party(node: str, key: PartyKey) -> Party:
    """*node* as a party. Raises ValueError when nothing can be sealed to its *key*."""
    try:
        seal_part(bytes(32), key.public, job="0" * 32, party=node, key=key.key, generation=FIRST_TABLE)
    except Exception as error:  # cryptography's own, which differ
        raise ValueError("its key is none") from error
    return Party(node, key.key, key.public)
