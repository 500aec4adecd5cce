"""Requests to peers: each with a short time limit, so that one that is away costs nobody else anything."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import ValidationError

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.mesh.peers import Peers, make_endpoint, split_endpoint
from pullprint.mesh.pieces import PIECE, FilePieces
from pullprint.mesh.rate import Rate
from pullprint.mesh.tls import Credentials
from pullprint.mesh.turns import Turns
from pullprint.wire.mesh import BODY_LIMIT, PORT, ROSTER_LIMIT, Hello, Peer, Received, SignedRoster
from pullprint.wire.node import Failure
from pullprint.wire.types import Message

TIMEOUT = 3.0
"""Seconds for a question and its answer, the connection included."""
TURN = 1.2
"""Seconds for the connection to one address when there are others to try."""
NEXT_AFTER = 0.25
"""Seconds for an address before the next is tried beside it (RFC 8305)."""
ROSTER_TIME = 10.0
IDLE = 10.0
"""Seconds in which some of a copy that is fetched must come."""
STALL = 3.0
"""Seconds in which a peer must take the next piece of a copy that is sent: another peer may take it instead."""
BUFFERED, SLOW_LINK = 4 << 20, 1 << 20
"""Bytes that may wait in the systems' buffers when the last piece has been handed over, and at least leave them in a
second."""
STORE_SPEED = 10 << 20
"""Bytes per second at which a peer makes a copy durable at least, once all of it is there."""
GRACE = 10.0
SLOWEST = 1 << 18
"""Bytes per second that a peer must take or give on the whole, after `GRACE` seconds."""
QUEUE_TIME = 8.0
"""Seconds until a copy that is fetched begins to come; peers let it wait for its turn (`server.QUEUE_TIME`)."""
AT_ONCE = 6
"""Copies on their way out at a time; the same for those that are fetched."""
COPIES_PER_PEER = 2
"""Of these, to or from one peer."""
PER_PEER = 8
"""Connections to one peer."""
KEEP = 20.0
"""Seconds for which an idle connection, some 300 KiB, is kept: less than the server's `connections.IDLE_TIME`, and more
than a round of `mesh.gossip` takes, so that at most sites there is one to each peer whenever it is needed."""

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)
Sink = Callable[[bytes], Awaitable[None]]


class PeerAway(PullprintError):
    """The host {name} does not answer ({reason}). Held jobs are safe; other hosts are asked meanwhile."""

    code = "peer-away"
    http_status = 503


class PeerSilent(PeerAway):
    """The host {name} does not answer in time ({reason}). Held jobs are safe; other hosts are asked meanwhile."""


class PeerRefused(PullprintError):
    """{sentence}"""

    code = "peer-refused"
    http_status = 409

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence=sentence)
        self.status = status
        self.code = code


class MeshClient:
    """This node's connections to its peers; an async context manager."""

    def __init__(self, peers: Peers, credentials: Credentials, clock: Clock, rate: Rate | None = None) -> None:
        """*rate*: what copies that are sent may take."""
        self._peers = peers
        self._credentials = credentials
        self._clock = clock
        self._rate = rate or Rate(clock)
        self._sending = Turns(AT_ONCE, COPIES_PER_PEER)
        self._fetching = Turns(AT_ONCE, COPIES_PER_PEER)
        self._one = aiohttp.ClientTimeout(total=None)
        self._several = aiohttp.ClientTimeout(total=None, sock_connect=TURN)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "MeshClient":
        self._session = aiohttp.ClientSession(
            connector=_Connector(self._peers),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=self._one,
            auto_decompress=False,
            read_bufsize=PIECE,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    async def ask(
        self, node: str, path: str, message: Message | None, answer: type[Answer], timeout: float = TIMEOUT
    ) -> Answer:
        """The *answer* of *node* to *message*, a POST; without one, a GET. Sent twice if need be.

        Raises NotAPeer, PeerAway, PeerRefused.
        """
        peer = self._peers.peer(node)
        return self._read(peer, await self._exchange(peer, path, message, timeout, BODY_LIMIT), answer)

    async def tell(self, node: str, path: str, message: Message, timeout: float = TIMEOUT) -> None:
        """*message* for *node*, to which nothing but 204 is the answer. Raises as `ask`."""
        peer = self._peers.peer(node)
        if await self._exchange(peer, path, message, timeout, BODY_LIMIT) is not None:
            raise self._away(peer, "it does not speak as Pullprint does")
        self._peers.heard(node)

    async def hello(self, node: str) -> Hello:
        """How *node* is; noted in `Peers`. Raises as `ask`."""
        begin = self._clock.monotonic()
        hello = await self.ask(node, "/mesh/v1/hello", None, Hello)
        if hello.node != node:
            raise self._away(self._peers.peer(node), "it says that it is another host")
        self._peers.heard(node, self._clock.monotonic() - begin, hello)
        return hello

    async def roster(self, node: str) -> str:
        """The JWS of the roster that *node* has; not verified. Raises as `ask`."""
        peer = self._peers.peer(node)
        raw = await self._exchange(peer, "/mesh/v1/roster", None, ROSTER_TIME, ROSTER_LIMIT + 1_000)
        return self._read(peer, raw, SignedRoster).roster

    async def send_copy(
        self, node: str, job: str, path: Path, offset: int, size: int, gone: Callable[[int], None] = lambda _: None
    ) -> Received:
        """Send the sealed file of *job*, which is at *path* and has *size* bytes, from *offset* on; *gone* is told how
        many bytes each piece has that leaves.

        Waits for its turn. A peer that takes no piece within `STALL` seconds, or less than `SLOWEST` on the whole, is
        given up (PeerSilent); what it has, it says at the next offer. Raises as `ask`, and OSError when the file cannot
        be read.
        """
        peer = self._peers.peer(node)
        async with self._sending.turn(node):
            upload = _Upload(await FilePieces.open(path, offset, size), size, self._rate, gone)
            try:
                async with self._errors(peer):
                    with upload.errors():
                        async with (
                            upload.limit,
                            self._request(peer, "PUT", _copy(job), offset, upload.body, upload.headers) as response,
                        ):
                            raw = await _limited(response, BODY_LIMIT)
            finally:
                upload.close()
        return self._read(peer, self._checked(peer, response.status, raw), Received)

    async def fetch_copy(self, node: str, job: str, offset: int, size: int, sink: Sink) -> None:
        """Give the sealed file of *job*, which has *size* bytes, from *offset* on to *sink*, in pieces.

        Raises as `ask`, and whatever *sink* raises.
        """
        peer = self._peers.peer(node)
        loop = asyncio.get_running_loop()
        failure: tuple[int, bytes] | None = None
        fault: Exception | None = None
        until = loop.time() + GRACE + size / SLOWEST
        async with (
            self._fetching.turn(node),
            self._errors(peer),
            asyncio.timeout(QUEUE_TIME) as limit,
            self._request(peer, "GET", _copy(job), offset, None, {}) as response,
        ):
            if response.status != 200:
                failure = response.status, await _limited(response, BODY_LIMIT)
            elif response.content_length != size - offset:
                raise self._away(peer, "its copy has another length")
            else:
                while piece := await response.content.readany():
                    limit.reschedule(None)
                    begin = loop.time()
                    try:
                        await sink(piece)
                    except Exception as error:  # noqa: BLE001  (whatever it is, it is not the peer's fault)
                        fault = error
                        break
                    until += loop.time() - begin
                    limit.reschedule(min(loop.time() + IDLE, until))
        if fault:
            raise fault
        if failure:
            self._checked(peer, *failure)
            raise self._away(peer, "it does not speak as Pullprint does")
        self._peers.heard(node)

    async def _exchange(
        self, peer: Peer, path: str, message: Message | None, timeout: float, limit: int
    ) -> bytes | None:
        """The body of a 200; None for 204."""
        body = None if message is None else message.model_dump_json().encode()
        method = "GET" if body is None else "POST"
        headers = {"Content-Type": "application/json"} if body else {}
        async with self._errors(peer), asyncio.timeout(timeout):
            try:
                async with self._request(peer, method, path, 0, body, headers) as response:
                    status, raw = response.status, await _limited(response, limit)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise
                # The kept connection may just have been closed; all that peers say to each other may be said twice.
                async with self._request(peer, method, path, 0, body, headers) as response:
                    status, raw = response.status, await _limited(response, limit)
        return self._checked(peer, status, raw)

    def _request(
        self, peer: Peer, method: str, path: str, offset: int, data: Any, headers: dict[str, str]
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._session is not None
        endpoints = self._peers.endpoints(peer.node)
        if not endpoints:
            raise self._away(peer, "no address of it is known")
        # The node's id as the host: connections are kept by it, the certificate must be for it, and `_Resolver` turns
        # it into addresses.
        return self._session.request(
            method,
            f"https://{peer.node}:{PORT}{path}" + (f"?from={offset}" if offset else ""),
            data=data,
            headers=headers,
            ssl=self._credentials.client,
            timeout=self._several if len(endpoints) > 1 else self._one,
            allow_redirects=False,
        )

    def _checked(self, peer: Peer, status: int, raw: bytes) -> bytes | None:
        if status == 200:
            return raw
        if status == 204 and not raw:
            return None
        try:
            failure = Failure.model_validate_json(raw)
        except ValidationError as error:
            raise self._away(peer, f"it does not speak as Pullprint does, status {status}") from error
        self._peers.heard(peer.node)
        raise PeerRefused(status, failure.code, failure.sentence)

    def _read(self, peer: Peer, raw: bytes | None, answer: type[Answer]) -> Answer:
        try:
            message = answer.model_validate_json(raw or b"")
        except (ValidationError, RecursionError) as error:
            raise self._away(peer, "it does not speak as Pullprint does") from error
        self._peers.heard(peer.node)
        return message

    @contextlib.asynccontextmanager
    async def _errors(self, peer: Peer) -> AsyncIterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self._away(peer, "it is silent", PeerSilent) from error
        except (aiohttp.ClientError, ConnectionError, ssl.SSLError) as error:
            raise self._away(peer, _reason(error)) from error

    def _away(self, peer: Peer, reason: str, kind: type[PeerAway] = PeerAway) -> PeerAway:
        self._peers.missed(peer.node, reason)
        return kind(name=peer.name, reason=reason)


class _Upload:
    """The body of a PUT, and the time that the peer has for it: for each piece, and on the whole. What the disk and the
    rate take is not counted."""

    def __init__(self, pieces: FilePieces, size: int, rate: Rate, gone: Callable[[int], None]) -> None:
        self.size = pieces.left
        self._gone = gone
        self.headers = {"Content-Length": str(self.size), "Content-Type": "application/octet-stream"}
        self._fault: OSError | None = None
        self._loop = asyncio.get_running_loop()
        self._pieces = pieces
        self._store_time = STALL + min(size, BUFFERED) / SLOW_LINK + size / STORE_SPEED
        self._rate = rate
        self._budget = GRACE
        self._given: float | None = None
        self.limit = asyncio.timeout(TIMEOUT if self.size else self._store_time)

    @property
    def body(self) -> "_Upload | bytes":
        """For aiohttp, which takes a body of no pieces for one of unknown length."""
        return self if self.size else b""

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Let what went wrong with the file be that, which aiohttp takes for the connection's fault."""
        try:
            yield
        except (aiohttp.ClientError, OSError):
            if self._fault:
                raise self._fault from None
            raise

    def __aiter__(self) -> "_Upload":
        return self

    async def __anext__(self) -> memoryview:
        if self._given is not None:
            self._budget -= self._loop.time() - self._given
        self.limit.reschedule(None)
        try:
            piece = await self._pieces.next()
        except OSError as error:
            self._fault = error
            raise
        if not piece:
            self.limit.reschedule(self._loop.time() + self._store_time)
            raise StopAsyncIteration
        await self._rate.take(len(piece))
        self._budget += len(piece) / SLOWEST
        self._given = self._loop.time()
        self.limit.reschedule(self._given + min(STALL, max(self._budget, 0)))
        self._gone(len(piece))
        return piece

    def close(self) -> None:
        self._pieces.close()


class _Resolver(AbstractResolver):
    """Where a node listens."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        places = [place for each in self._peers.endpoints(host) if (place := split_endpoint(each))]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=number,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address, number in places
        ]

    async def close(self) -> None:
        pass


class _Connector(aiohttp.TCPConnector):
    """Keeps connections by node, and notes at which address each was found."""

    def __init__(self, peers: Peers) -> None:
        super().__init__(
            resolver=_Resolver(peers),
            use_dns_cache=False,
            limit=0,  # of all: a silent peer's must not be in another's way
            limit_per_host=PER_PEER,
            keepalive_timeout=KEEP,
            happy_eyeballs_delay=NEXT_AFTER,
        )
        self._peers = peers

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        connection = await super().connect(req, traces, timeout)
        if (transport := connection.transport) and (name := transport.get_extra_info("peername")):
            self._peers.worked(req.url.raw_host, make_endpoint(name[0], name[1]))
        return connection


def _copy(job: str) -> str:
    return f"/mesh/v1/copies/{job}"


async def _limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    data = b""
    while piece := await response.content.readany():
        data = data + piece if data else piece
        if len(data) > limit:
            raise aiohttp.ClientPayloadError("too large")
    return data


def _reason(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "what listens there cannot prove that it is this host"
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return "one of the two does not take the other's certificate"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.ClientPayloadError():
            return "its answer is too long, or broke off"
        case aiohttp.ServerDisconnectedError():
            return "it hung up, perhaps over this host's certificate"
        case _:
            return "the connection broke"
