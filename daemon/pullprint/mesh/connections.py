"""Who is connected: accepts, counts and closes the connections of the mesh's server.

Strangers on the network get a handshake and nothing else; of them, and of each peer, there are only so many at a time.
Where there are too many, the one that has been idle longest goes.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from aiohttp import web

from pullprint.base.clock import Clock
from pullprint.mesh.tls import Credentials, node_of

LIMIT = 128
"""Connections of peers. Each costs some 300 KiB, most of it asyncio's TLS buffer."""
PER_PEER = 16
"""Connections of one peer: all that its client opens (`mesh.client.PER_PEER`), twice, as it may have been restarted."""
HANDSHAKES = 32
"""Connections that have not shown a certificate yet."""
HANDSHAKE_TIME = 5.0
"""Seconds for TLS."""
FIRST_TIME = 10.0
"""Seconds from there to the first whole request head."""
IDLE_TIME = 75.0
"""Seconds from one request to the next whole request head; longer than a client keeps a connection."""
AGE = 3_600.0
"""Seconds after which a connection is not used again, so that a certificate that has expired meanwhile is noticed."""
SWEEP = 2.0
"""Seconds between two looks at these limits."""
GOODBYE_TIME = 2.0
"""Seconds for the other end to take leave, too."""
LINGER = 1.0
"""Seconds for which the rest of a refused body is read and thrown away, so that its sender sees the answer."""

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Connection:
    """A connection of a node with a certificate; whether it is a peer is asked at each request."""

    node: str
    since: float
    quiet_since: float
    served: bool = False
    """It has made a request."""
    busy: bool = False
    """It is making one."""


@dataclass(eq=False, slots=True)
class _Stranger:
    address: str
    task: asyncio.Task[None] | None = None


class Connections(web.Server):
    """aiohttp's server, whose connections are counted and can be closed by node."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        credentials: Credentials,
        clock: Clock,
        read_buffer: int,
    ) -> None:
        super().__init__(
            handler,
            access_log=None,
            keepalive_timeout=IDLE_TIME,
            lingering_time=LINGER,
            auto_decompress=False,  # a small body could become a huge one
            read_bufsize=read_buffer,
        )
        self._credentials = credentials
        self._clock = clock
        self._open: dict[web.RequestHandler, Connection] = {}
        self._strangers: dict[_Stranger, None] = {}
        self._complained = ""

    def of(self, request: web.BaseRequest) -> Connection:
        """The connection of *request*. Raises ConnectionResetError when it has just been closed."""
        connection = self._open.get(request.protocol)
        if connection is None:
            raise ConnectionResetError("closed")
        return connection

    def count(self) -> int:
        """Connections with a certificate."""
        return len(self._open)

    async def accept(self, listening: socket.socket) -> None:
        """Accept connections from *listening*, which does not block, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    sock, address = await loop.sock_accept(listening)
                except OSError as error:  # such as too many open files
                    log.error("no connection can be accepted: %s", error.strerror)
                    await self._clock.sleep(1.0)
                    continue
                stranger = _Stranger(address[0])
                self._strangers[stranger] = None
                stranger.task = group.create_task(self._shake_hands(sock, stranger), name="mesh: handshake")
                if len(self._strangers) > HANDSHAKES:
                    self._drop_stranger()

    async def sweep(self) -> None:
        """Close what is over its time, until cancelled."""
        while True:
            await self._clock.sleep(SWEEP)
            now = self._clock.monotonic()
            for handler, connection in list(self._open.items()):
                if not connection.busy and (
                    now - connection.quiet_since >= (IDLE_TIME if connection.served else FIRST_TIME)
                    or now - connection.since >= AGE
                ):
                    self._close(handler)

    def keep_only(self, nodes: Collection[str]) -> None:
        """Close the connections of all other nodes, whatever they are doing."""
        for handler, connection in list(self._open.items()):
            if connection.node not in nodes:
                self._close(handler)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """aiohttp's: the handshake is over."""
        super().connection_made(handler, transport)
        node = node_of(transport.get_extra_info("peercert"))
        now = self._clock.monotonic()
        own = [each for each, connection in self._open.items() if connection.node == node]
        if (len(own) >= PER_PEER and not self._close_idlest(own)) or (
            len(self._open) >= LIMIT and not self._close_idlest(list(self._open))
        ):
            transport.abort()
            return
        self._open[handler] = Connection(node, now, now)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """aiohttp's: it is closed."""
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)

    async def _shake_hands(self, sock: socket.socket, stranger: _Stranger) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self,
                sock,
                ssl=self._credentials.server,
                ssl_handshake_timeout=HANDSHAKE_TIME,
                ssl_shutdown_timeout=GOODBYE_TIME,
            )
        except Exception as error:  # noqa: BLE001  (the root of what strangers can do)
            # Once for each that comes again and again, such as a host that was revoked or has an old certificate.
            level = logging.DEBUG if stranger.address == self._complained else logging.INFO
            self._complained = stranger.address
            log.log(level, "no connection with %s: %s", stranger.address, getattr(error, "reason", "") or error)
        finally:
            self._strangers.pop(stranger, None)

    def _drop_stranger(self) -> None:
        """End the oldest handshake of the address that has the most of them."""
        most, _ = Counter(stranger.address for stranger in self._strangers).most_common(1)[0]
        oldest = next(stranger for stranger in self._strangers if stranger.address == most)
        del self._strangers[oldest]
        assert oldest.task is not None
        oldest.task.cancel()

    def _close_idlest(self, handlers: list[web.RequestHandler]) -> bool:
        idle = [handler for handler in handlers if not self._open[handler].busy]
        if idle:
            self._close(min(idle, key=lambda handler: self._open[handler].quiet_since))
        return bool(idle)

    def _close(self, handler: web.RequestHandler) -> None:
        self._open.pop(handler, None)
        transport = handler.transport
        handler.force_close()
        if transport is not None:
            transport.abort()
