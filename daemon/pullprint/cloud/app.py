"""A running cloud: everything is made and wired here."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from pullprint.base import files, systemd
from pullprint.base.clock import Clock
from pullprint.base.config import ConfigFile
from pullprint.base.errors import ConfigError
from pullprint.cloud import (
    certificates,
    housekeeping,
    metrics,
    nodes,
    page,
    pictures,
    replacement,
    routes_node,
    routes_sessions,
    routes_web,
    stream,
    takeover,
    tls,
    uploads,
)
from pullprint.cloud.bus import Bus, LocalBus, watch_changes
from pullprint.cloud.config import Settings
from pullprint.cloud.gate import CLOUD, Cloud, check_declared, gate, protect
from pullprint.cloud.store import Store
from pullprint.cloud.users import Passwords

KEEP_ALIVE = 75.0
"""Seconds that a connection may be without a request, its headers included: longer than a node takes between two."""
SHUTDOWN = 5.0
"""Seconds that requests get to finish; parked ones end at once."""
LINGER = 2.0
"""Seconds for which the rest of a refused body is read and thrown away, so that its sender sees the answer."""
BACKLOG = 1_024
PATIENCE = 300.0
"""Seconds for which the database may be silent before systemd is to start this process anew. A thread that hangs, or a
connection whose other end has vanished, is put right by that; a disk or a server that is only slow is not."""

_log = logging.getLogger(__name__)


def build(cloud: Cloud) -> web.Application:
    """The application. Raises ConfigError when a route does not say who may call it."""
    app = web.Application(middlewares=[gate])
    app[CLOUD] = cloud
    app.on_response_prepare.append(protect)
    routes_node.add(app)
    routes_sessions.add(app)
    routes_web.add(app)
    stream.add(app)
    uploads.add(app)
    pictures.add(app)
    page.add(app)
    metrics.add(app)
    check_declared(app)
    return app


@contextlib.asynccontextmanager
async def serving(settings: Settings, clock: Clock, passwords: Passwords | None = None) -> AsyncIterator[int]:
    """Accept connections as long as the block lasts; the port, 0 for a Unix socket. Raises ConfigError, StoreBusy."""
    context = None if settings.proxy else tls.server_context(settings.certificate, settings.key)
    loop = asyncio.get_running_loop()
    store = Store(settings.database_url, clock)
    bus: Bus = LocalBus()
    store.on_commit = lambda topics: _wake(loop, bus, topics)
    secret_checks = passwords or Passwords()
    try:
        async with systemd.starting("bringing the database up to date"):
            await loop.run_in_executor(None, store.upgrade)
        # The port must be known for the default public_url, so it is bound before anything answers on it.
        sock = _bind_unix(settings.socket) if settings.socket else _bind(settings)
        port = 0 if settings.socket else int(sock.getsockname()[1])
        public_url = settings.public_url or _default_url(settings, port)
        cloud = Cloud(settings, clock, store, bus, secret_checks, public_url)
        app = build(cloud)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(watch_changes(store, bus, clock)),
                tasks.create_task(housekeeping.run(store, clock)),
                tasks.create_task(takeover.watch(store, bus, clock, cloud.presence.is_here, cloud.tally)),
                tasks.create_task(replacement.watch(store, clock, cloud.presence.is_here, settings.replace_after)),
                tasks.create_task(systemd.beat(lambda: _check(store), lambda: PATIENCE)),
            ]
            if context:
                background.append(tasks.create_task(certificates.watch(settings, context, clock)))
            try:
                async with _listening(app, sock, context, bus):
                    yield port
            finally:
                for task in background:
                    task.cancel()
    finally:
        secret_checks.close()
        await store.close()


async def serve(settings: Settings, clock: Clock, config: ConfigFile[Settings]) -> None:
    """Serve until SIGTERM or SIGINT; *config* is the file that *settings* are from."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings, clock) as port:
        if settings.port_file:
            files.replace(settings.port_file, f"{port}\n".encode(), 0o644)
        _log.info("ready on %s", settings.socket or f"port {port}")
        systemd.notify("READY=1")
        await asyncio.to_thread(config.keep)
        await stop.wait()
        systemd.notify("STOPPING=1")
        _log.info("stopping")


async def _check(store: Store) -> None:
    """Ask the database, without which nothing here works; the answer is what systemd shows."""
    there, connected = await store.read(nodes.connected)
    systemd.tell_status(f"{connected} of {there} nodes connected")


@contextlib.asynccontextmanager
async def _listening(
    app: web.Application, sock: socket.socket, context: ssl.SSLContext | None, bus: Bus
) -> AsyncIterator[None]:
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEP_ALIVE,
        shutdown_timeout=SHUTDOWN,
        lingering_time=LINGER,
        auto_decompress=False,  # a small body could become a huge one
    )
    await runner.setup()
    try:
        await web.SockSite(runner, sock, ssl_context=context, backlog=BACKLOG).start()
        yield
    finally:
        bus.close()
        await runner.cleanup()


def _wake(loop: asyncio.AbstractEventLoop, bus: Bus, topics: set[str]) -> None:
    # From the worker thread, right after the commit: also when the request that made it has gone away.
    with contextlib.suppress(RuntimeError):  # the loop has just been closed
        loop.call_soon_threadsafe(bus.wake, topics)


def _bind(settings: Settings) -> socket.socket:
    try:
        return socket.create_server(
            (settings.host, settings.port),
            family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
            dualstack_ipv6=settings.host == "::",
            backlog=BACKLOG,
        )
    except OSError as error:
        raise ConfigError(
            path=f"{settings.host}:{settings.port}", reason=error.strerror or "no such address"
        ) from error


def _bind_unix(path: Path) -> socket.socket:
    """For its owner and group. One that an earlier process left is taken away, one that is answered on is not."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket() and sock.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
        sock.close()
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        path.chmod(0o660)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(path=path, reason=error.strerror or "it cannot be a socket") from error
    return sock


def _default_url(settings: Settings, port: int) -> str:
    host = socket.gethostname() if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
