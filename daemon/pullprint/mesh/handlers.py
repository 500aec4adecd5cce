"""What peers may ask of this node: `node` implements it, `mesh.server` calls it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from pullprint.base.errors import PullprintError
from pullprint.wire.holders import Accept, AcceptanceAnswer, Close, Closed, Opening
from pullprint.wire.mesh import Accepted, Ballots, Commit, Hello, Installation, News, Offer, Peer, Prepare, Received


class Interrupted(PullprintError):
    """A copy broke off on its way: {reason}. What has arrived is kept, and the rest is sent again."""

    code = "interrupted"
    http_status = 400


class Incoming(AsyncIterator[bytes]):
    """The octets of a PUT, in pieces of about 256 KiB; ends after exactly *size* bytes or raises Interrupted."""

    size: int
    """That the sender announced, and the most that comes. Compare it with what was offered before reading."""


class Handlers(Protocol):
    """Every call comes from *peer*, which its certificate names and the roster lists at this moment.

    Any PullprintError becomes the answer; anything else an answer that says nothing, and a line in the log. Calls are
    not cancelled when the caller goes away.
    """

    async def hello(self) -> Hello:
        """How this node is."""
        ...

    async def roster(self) -> str:
        """The JWS of the latest roster; empty for none."""
        ...

    async def offer(self, peer: Peer, job: str, offer: Offer) -> Accepted:
        """Make room for a copy."""
        ...

    async def receive(self, peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
        """Keep the sealed file from *offset* on. Whatever *pieces* raises goes through, with all before it kept."""
        ...

    async def open_copy(self, peer: Peer, job: str) -> tuple[Path, int]:
        """Where the sealed file is, for a peer that may have it, and its length."""
        ...

    async def install(self, peer: Peer, installation: Installation) -> None:
        """Become a holder."""
        ...

    async def prepare(self, peer: Peer, message: Prepare) -> Ballots:
        """PREPARE."""
        ...

    async def commit(self, peer: Peer, message: Commit) -> Ballots:
        """COMMIT."""
        ...

    async def news(self, peer: Peer, message: News) -> None:
        """What became of the peer's attempt."""
        ...

    async def close(self, peer: Peer, message: Close) -> Closed:
        """Vote no more in this generation."""
        ...

    async def accept_generation(self, peer: Peer, message: Accept) -> AcceptanceAnswer:
        """Accept the next generation's key table."""
        ...

    async def open_generation(self, peer: Peer, message: Opening) -> None:
        """The next generation is in force."""
        ...
