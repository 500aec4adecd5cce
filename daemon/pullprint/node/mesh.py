"""This node in the mesh of its site: what `pullprint.mesh` needs to run, and who answers for what peers ask.

It runs whether the cloud is there or not. What goes wrong here keeps nobody from printing: it is said, and tried again.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from pullprint import __version__
from pullprint.base.bell import Bell
from pullprint.base.clock import Clock
from pullprint.base.errors import ConfigError, PullprintError
from pullprint.mesh.client import MeshClient
from pullprint.mesh.discovery import Discovery
from pullprint.mesh.gossip import Gossip
from pullprint.mesh.handlers import Incoming
from pullprint.mesh.peers import NotAPeer, Peers, make_endpoint
from pullprint.mesh.rate import Rate
from pullprint.mesh.server import MeshServer, bind
from pullprint.mesh.tls import CertificateUnusable, Credentials
from pullprint.model.placement import Role
from pullprint.node.certificate import MeshCertificate
from pullprint.node.client import CloudClient
from pullprint.node.copies import Copies
from pullprint.node.generation_author import GenerationAuthor
from pullprint.node.generation_voter import GenerationVoter
from pullprint.node.holder import Holder
from pullprint.node.metrics import Counts
from pullprint.node.news import Messenger
from pullprint.node.placement import Placement
from pullprint.node.quorum import Quorum
from pullprint.node.scrub import Scrub
from pullprint.node.settings import Settings, split_address
from pullprint.node.site import Site
from pullprint.node.voter import Voter
from pullprint.vault.index import Index
from pullprint.vault.keyring import Identity
from pullprint.vault.record import Record
from pullprint.vault.sealing import Party
from pullprint.wire.holders import Accept, AcceptanceAnswer, Close, Closed, Opening
from pullprint.wire.mesh import Accepted, Ballots, Commit, Hello, Installation, News, Offer, Peer, Prepare, Received
from pullprint.wire.node import HoldersItem

log = logging.getLogger(__name__)

MIB = 1 << 20
LISTEN_RETRY = 30.0
"""Seconds until a port that is taken is tried again, and a certificate that cannot be used is read again."""
CLEAN_EVERY = 300.0
"""Seconds between two looks for copies that nobody finished."""
LOOK_TIME = 3.0
"""Seconds for finding out this host's own address."""
HELLO_FRESH = 30.0
"""Seconds for which peers are told the same of this node's load and room."""
UNNAMED = "another host"
"""Where the list of the site's hosts has no name for one (any more)."""
_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""RFC 5737, RFC 3849: nobody's. Nothing is sent there; the way to it is the default route."""


class Mesh:
    """The `mesh.handlers.Handlers` of this node, and all that runs for them."""

    def __init__(
        self, settings: Settings, holder: Holder, site: Site, identity: Identity, placement: Placement, clock: Clock,
        counts: Counts | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._holder = holder
        self._site = site
        self._identity = identity
        self._placement = placement
        self._clock = clock
        self.peers = Peers(settings.state_dir, identity.node, clock)
        self.role = settings.role
        self.copies = Copies(settings, holder, site, identity, clock, counts)
        self.voter = Voter(holder, site, identity, clock, self.name, counts)
        self.generations = GenerationVoter(
            holder, site, identity, clock, self.name, self.copies.path, self.copies.take
        )  # fmt: skip
        self._author = GenerationAuthor(holder, site, identity, clock, self.generations, self._give)
        self.scrub = Scrub(holder, self.name, clock, counts)
        self.certificate = MeshCertificate(settings.state_dir, site, clock)
        self.cloud: Callable[[], CloudClient | None] = lambda: None
        """The cloud, while it is there."""
        self.found_voters: Callable[[Quorum | None], None] = lambda _: None
        """Told of what asks the other voters, when the mesh runs, and when it does not any more."""
        self.trouble = ""
        """What keeps this node from being reached by its peers, for people."""
        self._listening: socket.socket | None = None
        self._addresses: tuple[str, ...] = ()
        self._credentials: Credentials | None = None
        self._renewed = Bell()
        self._look_again, self._jobs_held = 0.0, 0
        self.moved = Bell()
        """Rings when `endpoints` may have changed."""

    @property
    def wanted(self) -> bool:
        """Whether there is to be a mesh at all."""
        return bool(self._settings.mesh_listen)

    def name(self, node: str) -> str:
        """What people call *node*."""
        if node == self._identity.node:
            return self._settings.name
        try:
            return self.peers.peer(node).name
        except NotAPeer:
            return UNNAMED

    async def open(self) -> None:
        """Read what is known of the site, and listen; this node has joined. What cannot be had is tried again by
        `run`."""
        member = self._site.membership
        await asyncio.to_thread(self.peers.load, self._site.pin, member.organisation, member.site)
        await self._listen()

    async def run(self) -> None:
        """Until cancelled; `open` was called."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.certificate.keep(self.cloud, self._take_up), name="mesh: certificate")
                group.create_task(self._clean(), name="mesh: unfinished copies")
                credentials = await self._credentials_of()
                rate = Rate(self._clock, self._settings.mesh_rate_mib * MIB)
                async with MeshClient(self.peers, credentials, self._clock, rate) as client:
                    quorum = Quorum(client, self._identity.node, self.name)
                    self.found_voters(quorum)
                    try:
                        async with asyncio.TaskGroup() as tasks:
                            gossip = Gossip(self.peers, client, self.accept, self._clock)
                            messenger = Messenger(self._holder, client, self._known, self._clock)
                            server = MeshServer(self.peers, self, credentials, self._clock, rate)
                            tasks.create_task(self._serve(server), name="mesh: server")
                            tasks.create_task(gossip.run(), name="mesh: gossip")
                            tasks.create_task(messenger.run(), name="mesh: news")
                            tasks.create_task(self._placement.run(self.peers, client), name="mesh: placement")
                            tasks.create_task(self._author.run(client), name="mesh: generations")
                            tasks.create_task(self.scrub.run(client), name="mesh: scrub")
                    finally:
                        self.found_voters(None)
                        await quorum.close()
        finally:
            if self._listening is not None:
                self._listening.close()
                self._listening = None

    async def accept(self, token: str) -> bool:
        """Take the roster in *token* if it is newer. Raises StatementRefused."""
        member = self._site.membership
        return await self.peers.accept(token, self._site.pin, member.organisation, member.site)

    async def endpoints(self) -> tuple[str, ...]:
        """Where peers reach this node."""
        if self._listening is None or self._credentials is None:
            return ()
        host, port = self._listening.getsockname()[:2]
        if self._settings.mesh_address:
            addresses: tuple[str, ...] = (self._settings.mesh_address,)
        elif host not in ("::", "0.0.0.0"):  # noqa: S104
            addresses = (host,)
        else:
            addresses = await self._own_addresses()
        return tuple(make_endpoint(address, port) for address in addresses)

    async def room(self) -> int:
        """Bytes that this node would still store for others."""
        return await self.copies.room()

    # What peers ask: see `mesh.handlers`.

    async def hello(self) -> Hello:
        """How this node is."""
        now = self._clock.monotonic()
        if now >= self._look_again:  # once for all that greet: it counts what is held
            self._look_again = now + HELLO_FRESH
            self._jobs_held = (await self._holder.read(Index.counts)).get("held", 0)
            await self.copies.room()
        return Hello(
            node=self._identity.node, version=__version__, roster=self.peers.revision, role=Role(self._settings.role),
            room=self.copies.last_room, load=self._jobs_held,
        )  # fmt: skip

    async def roster(self) -> str:
        """The JWS of the latest roster."""
        return self.peers.token

    async def offer(self, peer: Peer, job: str, offer: Offer) -> Accepted:
        """Make room for a copy."""
        return await self.copies.offer(peer, job, offer)

    async def receive(self, peer: Peer, job: str, offset: int, pieces: Incoming) -> Received:
        """Keep a copy."""
        return await self.copies.receive(peer, job, offset, pieces)

    async def open_copy(self, peer: Peer, job: str) -> tuple[Path, int]:
        """A copy for another of its holders."""
        return await self.copies.open_copy(peer, job)

    async def install(self, peer: Peer, installation: Installation) -> None:
        """Become a holder."""
        await self.copies.install(peer, installation)

    async def prepare(self, peer: Peer, message: Prepare) -> Ballots:
        """PREPARE."""
        return await self.voter.prepare(peer.node, message)

    async def commit(self, peer: Peer, message: Commit) -> Ballots:
        """COMMIT."""
        return await self.voter.commit(peer.node, message)

    async def news(self, peer: Peer, message: News) -> None:
        """What became of the peer's attempt."""
        await self.voter.news(peer.node, message)

    async def close(self, peer: Peer, message: Close) -> Closed:
        """Vote no more in this generation."""
        return await self.generations.close(peer.node, message)

    async def accept_generation(self, peer: Peer, message: Accept) -> AcceptanceAnswer:
        """Accept the next generation's key table."""
        return await self.generations.accept(peer.node, message)

    async def open_generation(self, peer: Peer, message: Opening) -> None:
        """The next generation is in force."""
        await self.generations.open(peer.node, message)

    async def change_holders(self, item: HoldersItem) -> None:
        """See to what the cloud ordered; raises nothing."""
        try:
            await self._author.take(item)
        except Exception:
            log.exception("changing holders failed")

    # How it runs.

    async def _give(self, node: str, record: Record) -> Party | None:
        return await self._placement.transfers.give(node, record, self._holder.path(record.id))

    def _known(self, node: str) -> bool:
        try:
            self.peers.peer(node)
        except NotAPeer:
            return False
        return True

    async def _credentials_of(self) -> Credentials:
        """This node's certificate, as soon as there is one that can be used."""
        while True:
            ticket = self._renewed.ticket
            try:
                self._credentials = await asyncio.to_thread(self._load)
            except CertificateUnusable as error:
                if self.trouble != error.sentence:
                    log.warning("%s", error.sentence)
                self.trouble = error.sentence
                await self._renewed.wait(ticket, LISTEN_RETRY)
            else:
                if self._listening is not None:
                    self.trouble = ""
                self.moved.ring()
                return self._credentials

    def _load(self) -> Credentials:
        return Credentials(self.certificate.current(), self.certificate.key, self.certificate.authority)

    async def _take_up(self) -> None:
        """There is a new certificate."""
        self._renewed.ring()
        if self._credentials is not None:
            current = await asyncio.to_thread(self.certificate.current)
            await asyncio.to_thread(self._credentials.renew, current, self.certificate.key, self.certificate.authority)

    async def _listen(self) -> bool:
        host, port = split_address(self._settings.mesh_listen, "mesh_listen")
        try:
            self._listening = await asyncio.to_thread(bind, host, port)
        except ConfigError as error:
            reason = error.fields["reason"]
            trouble = f"Other hosts cannot reach this one at {self._settings.mesh_listen}: {reason}. Printing goes on."
            if self.trouble != trouble:
                log.warning("%s", trouble)
            self.trouble = trouble
            return False
        self.trouble = ""
        self.moved.ring()
        return True

    async def _serve(self, server: MeshServer) -> None:
        while self._listening is None:
            await self._clock.sleep(LISTEN_RETRY)
            await self._listen()
        port = self._listening.getsockname()[1]
        log.info("the mesh listens at port %d", port)
        async with server.serving(self._listening):
            await Discovery(self.peers, self._identity.node, port, self._clock, self._interfaces()).run()

    def _interfaces(self) -> tuple[str, ...] | None:
        """Where to announce this node: all networks, or that of the one address where it listens."""
        host, _ = split_address(self._settings.mesh_listen, "mesh_listen")
        return None if host in ("::", "0.0.0.0") else (host,)  # noqa: S104

    async def _own_addresses(self) -> tuple[str, ...]:
        """From where the way to the cloud begins; if that is this host, also from where all others begin."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(LOOK_TIME):
                self._addresses = await asyncio.to_thread(_ways_out, self._site.membership.cloud)
        return self._addresses

    async def _clean(self) -> None:
        while True:
            try:
                await self.copies.keep_house()
            except (PullprintError, OSError) as error:
                log.error("unfinished copies: %s", error)
            await self._clock.sleep(CLEAN_EVERY)


def _ways_out(cloud: str) -> tuple[str, ...]:
    """This host's addresses from which packets leave it, the one towards *cloud* (a URL) first. Blocking."""
    parts = urlsplit(cloud)
    ways = []
    with suppress(OSError):
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM)
        ways = [_source(family, address[:2]) for family, _, _, _, address in found]
    here = [way for way in ways if way]
    if not any(not _loopback(way) for way in here):
        here += [way for family, to in _SOMEWHERE.items() if (way := _source(family, (to, 443)))]
    return tuple(dict.fromkeys(here))[:4]


def _source(family: int, address: tuple[object, ...]) -> str:
    """From which of our addresses packets go to *address*; empty when there is no way. None is sent."""
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect(address)
        name = str(asking.getsockname()[0])
        return "" if "%" in name or name.startswith("fe80") else name
    return ""


def _loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")
