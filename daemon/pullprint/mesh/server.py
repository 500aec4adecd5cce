"""The mesh's server: the routes of `wire.mesh`, behind one gate.

Every request passes `MeshServer._answer`, which knows the caller by its certificate and asks the roster about it each
time; no handler can be reached otherwise. `mesh.connections` limits connections, this module bodies and transfers.
"""

import asyncio
import contextlib
import errno
import logging
import re
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from aiohttp import web
from pydantic import ValidationError

from pullprint.base.clock import Clock
from pullprint.base.errors import BadRequest, ConfigError, NotFound, PullprintError, TooLarge
from pullprint.mesh.connections import Connection, Connections
from pullprint.mesh.handlers import Handlers, Incoming, Interrupted
from pullprint.mesh.peers import Peers
from pullprint.mesh.pieces import PIECE, FilePieces
from pullprint.mesh.rate import Rate
from pullprint.mesh.tls import Credentials
from pullprint.mesh.turns import Turns
from pullprint.model.job import JOB_ID
from pullprint.wire.holders import Accept, Close, Opening
from pullprint.wire.mesh import BODY_LIMIT, Commit, Installation, News, Offer, Peer, Prepare, SignedRoster
from pullprint.wire.node import Failure
from pullprint.wire.types import Message

BODY_TIME = 10.0
"""Seconds for a whole JSON body."""
IDLE = 10.0
"""Seconds in which some of a copy must move."""
SLOWEST = 1 << 14
"""Bytes per second that a copy must make on the whole, after `GRACE` seconds: who is slower only keeps others away."""
GRACE = 30.0
TRANSFERS = 4
"""Copies that come in at a time, and as many that go out."""
PER_PEER = 2
"""Of one peer."""
QUEUE_TIME = 5.0
"""Seconds that a copy waits for its turn."""
BACKLOG = 128
SHUTDOWN = 1.0
"""Seconds that requests get to finish, and then once more to be cancelled."""

_COPY = re.compile(rf"/mesh/v1/copies/({JOB_ID.pattern})")
_log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)


class PeerFailed(PullprintError):
    """Something went wrong at the other host, whose log says what. Held jobs are safe."""

    code = "unexpected"


def bind(host: str, port: int) -> socket.socket:
    """A socket for `MeshServer.serving`, which listens only then; ``::`` is all addresses of this host, IPv4 too.

    Raises ConfigError.
    """
    try:
        try:
            return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)
        except OSError as error:
            if host != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise
            return _bound(socket.AF_INET, "0.0.0.0", port)  # noqa: S104
    except OSError as error:
        raise ConfigError(path=f"{host}:{port}", reason=error.strerror or "it cannot be used") from error


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind((host, port))
    except BaseException:
        made.close()
        raise
    return made


class MeshServer:
    """Serves the peers of this node."""

    def __init__(
        self, peers: Peers, handlers: Handlers, credentials: Credentials, clock: Clock, rate: Rate | None = None
    ) -> None:
        """*rate*: what copies that peers fetch may take, best the same as the client's."""
        self._peers = peers
        self._handlers = handlers
        self._credentials = credentials
        self._clock = clock
        self._rate = rate or Rate(clock)
        self._incoming = Turns(TRANSFERS, PER_PEER, QUEUE_TIME)
        self._outgoing = Turns(TRANSFERS, PER_PEER, QUEUE_TIME)
        self._connections: Connections | None = None
        self._posts: dict[str, Callable[[Peer, bytes], Awaitable[web.Response]]] = {
            "/mesh/v1/holders": self._install,
            "/mesh/v1/votes": self._prepare,
            "/mesh/v1/commits": self._commit,
            "/mesh/v1/news": self._news,
            "/mesh/v1/generations/close": self._close,
            "/mesh/v1/generations/accept": self._accept_generation,
            "/mesh/v1/generations/open": self._open_generation,
        }

    @contextlib.asynccontextmanager
    async def serving(self, sock: socket.socket) -> AsyncIterator[None]:
        """Serve on the bound *sock*, of which this takes possession, as long as the block lasts."""
        sock.setblocking(False)
        sock.listen(BACKLOG)
        connections = Connections(self._answer, self._credentials, self._clock, PIECE)
        self._connections = connections
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(connections.accept(sock), name="mesh: accept"),
                    group.create_task(connections.sweep(), name="mesh: sweep"),
                    group.create_task(self._shut_out(connections), name="mesh: shut out"),
                ]
                try:
                    yield
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            sock.close()
            connections.pre_shutdown()
            await connections.shutdown(SHUTDOWN)

    async def _shut_out(self, connections: Connections) -> None:
        while True:
            ticket = self._peers.changed.ticket
            connections.keep_only({peer.node for peer in self._peers.others()})
            await self._peers.changed.wait(ticket)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The one gate: errors outside, authentication inside, then the handler."""
        assert self._connections is not None
        connection: Connection | None = None
        try:
            connection = self._connections.of(request)
            connection.busy = connection.served = True
            return await self._admit(request, connection)
        except PullprintError as error:
            return _failure(error)
        except ConnectionError:
            # The peer has gone, or its answer has begun and cannot go on; aiohttp would write a traceback to the log.
            if request.transport:
                request.transport.abort()
            return web.Response(status=500)
        except Exception as error:  # noqa: BLE001  (the root of every request)
            # Not what the exception says, which may quote anything.
            frames = "".join(traceback.format_tb(error.__traceback__)[-6:])
            _log.error("%s in %s %s\n%s", type(error).__name__, request.method, request.path, frames)
            return _failure(PeerFailed())
        finally:
            if connection:
                connection.busy = False
                connection.quiet_since = self._clock.monotonic()

    async def _admit(self, request: web.BaseRequest, connection: Connection) -> web.StreamResponse:
        peer = self._peers.peer(connection.node)
        method, path = request.method, request.path
        if method == "POST" and (post := self._posts.get(path)):
            return await post(peer, await _body(request))
        if method == "GET" and path == "/mesh/v1/hello":
            return _json(await self._handlers.hello())
        if method == "GET" and path == "/mesh/v1/roster":
            return await self._roster()
        if copy := _COPY.fullmatch(path):
            if method == "POST":
                return _json(await self._handlers.offer(peer, copy[1], _parse(await _body(request), Offer)))
            if method == "PUT":
                return await self._receive(request, peer, copy[1])
            if method == "GET":
                return await self._send(request, peer, copy[1])
        raise NotFound(what="address")

    async def _roster(self) -> web.Response:
        roster = await self._handlers.roster()
        if not roster:
            raise NotFound(what="list of hosts")
        return _json(SignedRoster(roster=roster))

    async def _install(self, peer: Peer, body: bytes) -> web.Response:
        await self._handlers.install(peer, _parse(body, Installation))
        return web.Response(status=204)

    async def _prepare(self, peer: Peer, body: bytes) -> web.Response:
        return _json(await self._handlers.prepare(peer, _parse(body, Prepare)))

    async def _commit(self, peer: Peer, body: bytes) -> web.Response:
        return _json(await self._handlers.commit(peer, _parse(body, Commit)))

    async def _news(self, peer: Peer, body: bytes) -> web.Response:
        await self._handlers.news(peer, _parse(body, News))
        return web.Response(status=204)

    async def _close(self, peer: Peer, body: bytes) -> web.Response:
        return _json(await self._handlers.close(peer, _parse(body, Close)))

    async def _accept_generation(self, peer: Peer, body: bytes) -> web.Response:
        return _json(await self._handlers.accept_generation(peer, _parse(body, Accept)))

    async def _open_generation(self, peer: Peer, body: bytes) -> web.Response:
        await self._handlers.open_generation(peer, _parse(body, Opening))
        return web.Response(status=204)

    async def _receive(self, request: web.BaseRequest, peer: Peer, job: str) -> web.Response:
        if request.content_length is None:
            raise BadRequest(reason="a copy says how long it is")
        _refuse_compressed(request)
        offset = _offset(request)
        async with self._incoming.turn(peer.node):
            pieces = _Pieces(request, request.content_length)
            return _json(await self._handlers.receive(peer, job, offset, pieces))

    async def _send(self, request: web.BaseRequest, peer: Peer, job: str) -> web.StreamResponse:
        offset = _offset(request)
        async with self._outgoing.turn(peer.node):
            path, size = await self._handlers.open_copy(peer, job)
            if offset > size:
                raise BadRequest(reason="the copy is shorter than that")
            pieces = await FilePieces.open(path, offset, size)
            try:
                return await self._stream(request, pieces, size - offset)
            finally:
                pieces.close()

    async def _stream(self, request: web.BaseRequest, pieces: FilePieces, length: int) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        response.content_type = "application/octet-stream"
        response.content_length = length
        await response.prepare(request)
        try:
            while piece := await pieces.next():
                await self._rate.take(len(piece))
                async with asyncio.timeout(IDLE):
                    await response.write(piece)
        except OSError as error:  # TimeoutError is one
            # The answer has begun: all that can be said now is that it does not go on.
            raise ConnectionResetError("the copy broke off") from error
        return response


class _Pieces(Incoming):
    def __init__(self, request: web.BaseRequest, size: int) -> None:
        self.size = size
        self._left = size
        self._content = request.content
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + GRACE + size / SLOWEST
        self._broken: Interrupted | None = None

    async def __anext__(self) -> bytes:
        if self._broken:
            raise self._broken
        if not self._left:
            raise StopAsyncIteration
        parts: list[bytes] = []
        length = 0
        while self._left and length < PIECE:
            part = await self._part()
            if not part:
                break
            parts.append(part)
            length += len(part)
            self._left -= len(part)
        if not parts:
            assert self._broken is not None
            raise self._broken
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _part(self) -> bytes:
        """Empty when no more comes: then it is `_broken`."""
        try:
            async with asyncio.timeout_at(min(self._loop.time() + IDLE, self._until)):
                part = await self._content.readany()
        except TimeoutError:
            self._broken = Interrupted(reason="it came too slowly")
        except (web.RequestPayloadError, ConnectionError):
            self._broken = Interrupted(reason="the connection broke")
        else:
            if part:
                return part
            self._broken = Interrupted(reason="it ended too early")
        return b""


_HEADERS = {"Server": "pullprint"}


async def _body(request: web.BaseRequest) -> bytes:
    _refuse_compressed(request)
    if (request.content_length or 0) > BODY_LIMIT:
        raise TooLarge(what="The request", limit=f"{BODY_LIMIT >> 10} KiB")
    data = b""
    try:
        async with asyncio.timeout(BODY_TIME):
            while piece := await request.content.readany():
                data = data + piece if data else piece
                if len(data) > BODY_LIMIT:
                    raise TooLarge(what="The request", limit=f"{BODY_LIMIT >> 10} KiB")
    except TimeoutError as error:
        raise BadRequest(reason="its body did not arrive in time") from error
    except web.RequestPayloadError as error:
        raise BadRequest(reason="its body is damaged") from error
    return data


def _parse(body: bytes, kind: type[M]) -> M:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        # The error's own text has the values in it.
        where = ".".join(str(word) for word in error.errors(include_input=False, include_url=False)[0]["loc"])
        raise BadRequest(reason=f"{where or 'the body'} is missing or not as it should be") from error
    except RecursionError as error:
        raise BadRequest(reason="the body is nested too deeply") from error


def _offset(request: web.BaseRequest) -> int:
    text = request.query.get("from", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequest(reason="from is not a number")
    return int(text)


def _refuse_compressed(request: web.BaseRequest) -> None:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise BadRequest(reason="its body is compressed")


def _json(message: Message, status: int = 200) -> web.Response:
    return web.Response(
        body=message.model_dump_json().encode(), status=status, content_type="application/json", headers=_HEADERS
    )


def _failure(error: PullprintError) -> web.Response:
    return _json(Failure(code=error.code, sentence=error.sentence), error.http_status)
