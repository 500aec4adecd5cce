"""What peers may ask, answered from memory and a folder; it does what `mesh.handlers` asks for, and notes it."""

import hashlib
from pathlib import Path

from pullprint.base.errors import NotFound, TooLarge
from pullprint.mesh.handlers import Incoming
from pullprint.mesh.peers import Peers
from pullprint.wire.holders import Accept, AcceptanceAnswer, Close, Closed, Opening
from pullprint.wire.mesh import (
    Accepted,
    Ballots,
    Commit,
    Hello,
    Installation,
    News,
    Offer,
    Peer,
    Prepare,
    Received,
    Vote,
)
from pullprint.wire.node import PartyKey

KEY = PartyKey(key="day-1", public=bytes(32), expires=2_000_000_000)


class MemoryHandlers:
    """One node's."""

    def __init__(self, node: str, directory: Path, peers: Peers) -> None:
        self.node = node
        self.directory = directory
        self.peers = peers
        self.offered: dict[str, int] = {}
        self.said: list[tuple[str, object]] = []
        self.fault: Exception | None = None

    async def hello(self) -> Hello:
        return Hello(node=self.node, version="0.2.0", roster=self.peers.revision, room=1 << 30)

    async def roster(self) -> str:
        return self.peers.token

    async def offer(self, peer: Peer, job: str, offer: Offer) -> Accepted:
        self.offered[job] = offer.size
        path = self.directory / job
        return Accepted(key=KEY, have=path.stat().st_size if path.exists() else 0)

    async def receive(self, peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
        if job not in self.offered:
            raise NotFound(what="offer")
        if offset + pieces.size > self.offered[job]:
            raise TooLarge(what="The copy", limit=f"{self.offered[job]} bytes")
        path = self.directory / job
        path.touch()
        with path.open("r+b") as file:
            file.seek(offset)
            async for piece in pieces:
                file.write(piece)
        return Received(size=path.stat().st_size, digest=hashlib.sha256(path.read_bytes()).digest())

    async def open_copy(self, peer: Peer, job: str) -> tuple[Path, int]:
        path = self.directory / job
        if not path.exists():
            raise NotFound(what="job")
        return path, path.stat().st_size

    async def install(self, peer: Peer, installation: Installation) -> None:
        self._note(peer, installation)

    async def prepare(self, peer: Peer, message: Prepare) -> Ballots:
        self._note(peer, message)
        return Ballots(vote=Vote(promised=message.ballot), part=b"part")

    async def commit(self, peer: Peer, message: Commit) -> Ballots:
        self._note(peer, message)
        return Ballots(vote=Vote(promised=message.ballot))

    async def news(self, peer: Peer, message: News) -> None:
        self._note(peer, message)

    async def close(self, peer: Peer, message: Close) -> Closed:
        self._note(peer, message)
        return Closed(vote=Vote(), closed=message.number)

    async def accept_generation(self, peer: Peer, message: Accept) -> AcceptanceAnswer:
        self._note(peer, message)
        return AcceptanceAnswer(acceptance="a.b.c")

    async def open_generation(self, peer: Peer, message: Opening) -> None:
        self._note(peer, message)

    def _note(self, peer: Peer, message: object) -> None:
        if self.fault:
            raise self.fault
        self.said.append((peer.node, message))
