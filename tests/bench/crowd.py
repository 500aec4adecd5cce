"""Thousands of nodes on the wire, spread over a few processes: ``python -m tests.bench.crowd SETTINGS`` is one of them.

Each has a TLS connection of its own, a key of its own, and says what a node says: configuration, reconcile, then one
poll after the other; it gives up after a node's time limit and comes back with a node's back-off. It holds no job and
checks no signature. Against `tests.bench.bare` it only parks.
"""

import asyncio
import asyncio.sslproto
import base64
import hashlib
import json
import resource
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.rig.office import REPOSITORY
from tests.rig.processes import wait_until

from pullprint import __version__
from pullprint.base.backoff import Backoff
from pullprint.wire import signature

TELL_EVERY = 0.02
REQUEST_TIME = 20.0
"""`node.client.TIMEOUT`."""
WATCHDOG = 120.0
"""`node.channel.WATCHDOG`."""
PACE = 40.0
"""Nodes that come for the first time in a second."""
OTHER_FILES = 1_000
"""That a server needs besides its connections."""
KEY = {"key": "day-1", "public": base64.b64encode(bytes(32)).decode(), "expires": 4_000_000_000}


@dataclass(frozen=True)
class Settings:
    """What one process is told."""

    port: int
    authority: str
    first: int
    count: int
    bare: bool
    pace: float
    """Nodes that come in a second."""
    address: str = "127.0.0.1"


def key_of(number: int) -> Ed25519PrivateKey:
    """The identity of the node with that number."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"bench {number}".encode()).digest())


def most(wanted: int) -> int:
    """As many of *wanted* connections as one process may have open here; raises this process's own limit to that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - OTHER_FILES)


@dataclass
class Tally:
    """How the nodes of one process stand; times by ``time.monotonic``."""

    parked: int = 0
    """Polls that are sent and not answered."""
    connects: int = 0
    """Times that a node has got as far as its first poll."""
    connected_last: float = 0.0
    woken: int = 0
    """Polls that were answered with something."""
    woken_last: float = 0.0
    failures: int = 0
    trouble: str = ""


class One:
    """One node."""

    def __init__(self, settings: Settings, number: int, context: ssl.SSLContext, tally: Tally) -> None:
        self._settings = settings
        self._number = number
        self._key = key_of(number)
        self._id = signature.node_id(self._key.public_key().public_bytes_raw())
        self._context = context
        self._tally = tally
        self._since = 0

    async def run(self, delay: float) -> None:
        """For ever, as `node.channel` does it."""
        backoff = Backoff()
        await asyncio.sleep(delay)
        while True:
            try:
                await self._once(backoff)
            except (OSError, ValueError, EOFError, TimeoutError) as error:
                self._tally.failures += 1
                self._tally.trouble = repr(error)[:200]
            await asyncio.sleep(backoff.next())

    async def _once(self, backoff: Backoff) -> None:
        async with asyncio.timeout(REQUEST_TIME):
            reader, writer = await asyncio.open_connection(
                self._settings.address, self._settings.port, ssl=self._context, server_hostname="localhost"
            )
            self._stream = reader, writer
        try:
            if not self._settings.bare:
                await self._configure()
                await self._reconcile()
            backoff.reset()
            self._tally.connects += 1
            self._tally.connected_last = time.monotonic()
            while True:
                await self._poll()
        finally:
            writer.close()

    async def _configure(self) -> None:
        async with asyncio.timeout(REQUEST_TIME):
            await self._ask("GET", "/node/v1/config")

    async def _reconcile(self) -> None:
        holdings = {"epoch": "0" * 16, "version": __version__, "key": KEY, "last_event": 0, "jobs": []}
        async with asyncio.timeout(REQUEST_TIME):
            await self._ask("POST", "/node/v1/reconcile", json.dumps(holdings).encode())

    async def _poll(self) -> None:
        path, query = "/park/crowd" if self._settings.bare else "/node/v1/inbox", f"since={self._since}"
        self._tally.parked += 1
        try:
            async with asyncio.timeout(WATCHDOG):
                answer = await self._ask("GET", path, query=query)
        finally:
            self._tally.parked -= 1
        if answer is None:
            return
        self._tally.woken += 1
        self._tally.woken_last = time.monotonic()
        if self._settings.bare:
            self._since = answer["n"]
        else:
            self._since = answer["items"][-1]["seq"]
            await self._configure()

    async def _ask(self, method: str, path: str, body: bytes = b"", query: str = "") -> Any:
        """The JSON answer; None for 204. Raises ValueError for a refusal."""
        reader, writer = self._stream
        headers = {"Host": f"localhost:{self._settings.port}", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
        if not self._settings.bare:
            headers |= signature.sign(self._key, self._id, method, path, query, body, time.time())
        if body:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        target = f"{path}?{query}" if query else path
        writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(answered[0].split()[1])
        lengths = [line.partition(":")[2] for line in answered if line.lower().startswith("content-length:")]
        raw = await reader.readexactly(int(lengths[0])) if lengths else b""
        if status >= 300:
            raise ValueError(f"{status} {raw[:200]!r}")
        return json.loads(raw) if raw else None


async def take_part(settings: Settings) -> None:
    """All nodes of this process, telling on standard output how they stand."""
    # Each of asyncio's TLS connections takes 256 KiB for reading at once, of which a node needs little.
    asyncio.sslproto.SSLProtocol.max_size = 1 << 14
    context = ssl.create_default_context(cafile=settings.authority)
    tally = Tally()
    async with asyncio.TaskGroup() as group:
        for n in range(settings.count):
            # One after the other: what is measured is how they come back, not how they come.
            group.create_task(One(settings, settings.first + n, context, tally).run(n / settings.pace))
        last = ""
        while True:
            await asyncio.sleep(TELL_EVERY)
            text = json.dumps(asdict(tally))
            if text != last:
                print(text, flush=True)
            last = text


class Crowd:
    """*count* nodes, numbered from 0, in *processes*; a context manager."""

    def __init__(
        self, port: int, authority: Path, count: int, *, bare: bool = False, processes: int = 4, pace: float = PACE
    ) -> None:
        self.count = count
        self.coming = 60 + 2 * count / pace
        """Seconds within which all should have come."""
        share = -(-count // processes)
        self._settings = [
            Settings(port, str(authority), first, min(share, count - first), bare, pace / processes)
            for first in range(0, count, share)
        ]
        self._told: dict[int, dict[str, Any]] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for n, settings in enumerate(self._settings):
            argv = [sys.executable, "-m", "tests.bench.crowd", json.dumps(asdict(settings))]
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
            thread = threading.Thread(target=self._listen, args=(n, process), name=f"crowd {n}", daemon=True)
            thread.start()
            self._processes.append(process)
            self._threads.append(thread)
        return self

    def _listen(self, n: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):
                self._told[n] = json.loads(line)

    def sum(self, name: str) -> int:
        """Over all processes."""
        return sum(int(told[name]) for told in list(self._told.values()))

    def latest(self, name: str) -> float:
        """The last of all processes."""
        return max(float(told[name]) for told in list(self._told.values()))

    @property
    def trouble(self) -> str:
        """One of the latest failures."""
        return next((told["trouble"] for told in list(self._told.values()) if told["trouble"]), "")

    def wait(self, name: str, at_least: int, seconds: float) -> None:
        """Until that sum is reached. Raises TimeoutError."""
        try:
            wait_until(f"{name} of {at_least}", lambda: self.sum(name) >= at_least, seconds, every=0.01)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {self._told}") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            assert process.stdout is not None
            process.stdout.close()


if __name__ == "__main__":
    asyncio.run(take_part(Settings(**json.loads(sys.argv[1]))))
