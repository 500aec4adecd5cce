"""B5: from a document at the intake to three durable copies of it, sealed, on three hosts.

The node is set to answer a backend only when three hosts have the job (``min_copies = 3``), so the time of the answer
is the time of the third copy: sealing, fsync, two transfers over mutual TLS, fsync at each receiver, new key parts and
their installation. The baseline is aiohttp putting the same bytes to two TLS servers on the same two hosts, both at
once, over connections that are there already; they keep nothing. Measured on loopback, and between hosts in network
namespaces each of which sends at 1 Gbit/s (tc-tbf).
"""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import aiohttp
from tests.bench import bare
from tests.bench.figures import Figure, Target, percentile
from tests.rig.namespaces import cannot_make_networks, enter, inside
from tests.rig.office import NODES, Node, Office, Premises
from tests.rig.processes import free_port
from tests.rig.sites import Hosts

SIZE = 10 << 20
PIECE = 1 << 18
RATE = "1gbit"
# The burst of a switch, and what one timer tick sends at that rate.
LINK = ["tbf", "rate", RATE, "burst", "256kb", "latency", "50ms"]
COPIES = {"min_copies": 3}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bare server is."""

    address: str
    port: int
    namespace: str = ""


def run(*, quick: bool) -> Iterator[Figure]:
    """On loopback and, where namespaces can be made, over a link of 1 Gbit/s."""
    size, rounds = (1 << 20, 3) if quick else (SIZE, 30)
    with ExitStack() as stack:
        office = stack.enter_context(Office(nodes=3, node_settings=COPIES))
        places = [Place("127.0.0.1", free_port()) for _ in office.nodes[1:]]
        yield _compare(stack, office, "", places, "loopback", size, rounds)
    if cannot_make_networks():
        return
    with ExitStack() as stack:
        hosts = stack.enter_context(Hosts(NODES[:3], printers=(), settings=COPIES))
        for name in hosts.names:
            limit(hosts.network.namespace(name))
        names = hosts.names[1:]
        places = [Place(hosts.network.address(name), free_port(), hosts.network.namespace(name)) for name in names]
        yield _compare(stack, hosts, hosts.network.namespace(hosts.names[0]), places, "1 Gbit/s", size, rounds)


def limit(namespace: str) -> None:
    """What leaves this host goes at `RATE`."""
    subprocess.run(enter(namespace, ["tc", "qdisc", "replace", "dev", "net", "root", *LINK]), check=True)


def _compare(
    stack: ExitStack, site: Premises, namespace: str, places: Sequence[Place], link: str, size: int, rounds: int
) -> Figure:
    certificates = site.cloud.root / "certificates"
    for number, place in enumerate(places):
        server = bare.process(certificates, place.port, site.root / f"bare{number}.log", place.address, place.namespace)
        server.start(ready=(place.address, place.port), timeout=30)
        stack.callback(server.stop)
    documents = [os.urandom(size) for _ in range(rounds + 1)]
    ours, baseline = [], []
    with inside(namespace):
        putting = Putting(site.cloud.authority, places)
        try:
            for document in documents:
                baseline.append(putting.put(document))
                ours.append(store(site.nodes[0], document))
        finally:
            putting.close()
    # Those of the first round had no connections yet.
    values, bare_values = [size / 1e6 / seconds for seconds in ours[1:]], [size / 1e6 / s for s in baseline[1:]]
    detail = {"ms each": percentile(ours[1:], 50) * 1_000, "ms each of the baseline": percentile(baseline[1:], 50) * 1_000,
              "slowest ms": max(ours[1:]) * 1_000, "n": float(rounds)}  # fmt: skip
    return Figure(
        "B5", f"{size >> 20} MiB to three copies, {link}", "MB/s", percentile(values, 50), percentile(bare_values, 50),
        "aiohttp: TLS PUT to both at once", Target("ratio", "least", 0.7), detail,
    )  # fmt: skip


def store(node: Node, document: bytes) -> float:
    """Seconds until the node says that *document* is stored. Raises RuntimeError when it is not."""
    values = {
        "v": 1, "cups_job_id": 1, "copies": 1, "job_uuid": str(uuid.uuid4()), "device_uri": "pullprint:/",
        "queue": "pullprint", "user": "bench", "title": "bench", "options": "", "host": "localhost",
        "content_type": "application/octet-stream",
    }  # fmt: skip
    with TemporaryFile(dir="/dev/shm") as file, socket.socket(socket.AF_UNIX) as connection:
        file.write(document)
        file.seek(0)
        connection.settimeout(120)
        connection.connect(str(node.intake))
        began = time.monotonic()
        socket.send_fds(connection, [json.dumps(values).encode() + b"\n"], [file.fileno()])
        answer = connection.recv(1_000)
        seconds = time.monotonic() - began
    if not answer.startswith(b"stored "):
        raise RuntimeError(answer.decode())
    return seconds


class Putting:
    """A client with a kept connection to each server; made and used in one network namespace."""

    def __init__(self, authority: Path, places: Sequence[Place]) -> None:
        self._loop = asyncio.new_event_loop()
        self._urls = [f"https://{place.address}:{place.port}/bytes" for place in places]
        context = ssl.create_default_context(cafile=str(authority))
        context.check_hostname = False  # the servers' certificate is the cloud's
        self._session = self._loop.run_until_complete(self._open(context))

    async def _open(self, context: ssl.SSLContext) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0))

    def put(self, document: bytes) -> float:
        """Seconds until both have answered."""
        return self._loop.run_until_complete(self._put(document))

    async def _put(self, document: bytes) -> float:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for url in self._urls:
                group.create_task(self._one(url, document))
        return time.monotonic() - began

    async def _one(self, url: str, document: bytes) -> None:
        async def pieces() -> AsyncIterator[memoryview]:
            view = memoryview(document)
            for offset in range(0, len(view), PIECE):
                yield view[offset : offset + PIECE]

        headers = {"Content-Length": str(len(document))}
        async with self._session.put(url, data=pieces(), headers=headers) as response:
            if response.status != 204:
                raise RuntimeError(f"status {response.status}")

    def close(self) -> None:
        """Hang up."""
        self._loop.run_until_complete(self._session.close())
        self._loop.close()
