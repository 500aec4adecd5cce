"""What aiohttp itself takes, for baselines: ``python -m tests.bench.bare CERTIFICATE KEY PORT [ADDRESS]``, a TLS server
whose handlers do nothing but park, wake and read."""

import argparse
import asyncio
import random
import ssl
import sys
from collections import Counter
from pathlib import Path

from aiohttp import web
from tests.rig.office import REPOSITORY
from tests.rig.processes import Process

from pullprint.wire.node import PARK

_random = random.SystemRandom()


class Bare:
    """Those who wait, by name: «desk» for one, anything else for the crowd."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}
        self._times: Counter[str] = Counter()

    async def park(self, request: web.Request) -> web.Response:
        """204 after `PARK` seconds, or 200 as soon as that name was woken more often than the caller knows."""
        name = request.match_info["name"]
        event = self._events.setdefault(name, asyncio.Event())
        try:
            async with asyncio.timeout(PARK * _random.uniform(0.9, 1.1)):
                while self._times[name] <= int(request.query.get("since", "0")):
                    await event.wait()
        except TimeoutError:
            return web.Response(status=204)
        return web.json_response({"n": self._times[name]})

    async def times(self, request: web.Request) -> web.Response:
        """How often that name was woken."""
        return web.Response(text=str(self._times[request.match_info["name"]]))

    async def wake(self, request: web.Request) -> web.Response:
        """Whoever waits for that name."""
        await request.read()
        name = request.match_info["name"]
        self._times[name] += 1
        self._events.pop(name, asyncio.Event()).set()
        return web.Response(body=b"{}", content_type="application/json")

    async def put(self, request: web.Request) -> web.Response:
        """Read, and keep nothing."""
        async for _ in request.content.iter_any():
            pass
        return web.Response(status=204)


async def serve(certificate: Path, key: Path, port: int, address: str) -> None:
    """Until it is ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    bare = Bare()
    app = web.Application(client_max_size=0)
    app.router.add_get("/park/{name}", bare.park)
    app.router.add_get("/times/{name}", bare.times)
    app.router.add_post("/wake/{name}", bare.wake)
    app.router.add_put("/bytes", bare.put)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75)
    await runner.setup()
    await web.TCPSite(runner, address, port, ssl_context=context, backlog=1_024).start()
    await asyncio.Event().wait()


def process(certificates: Path, port: int, log: Path, address: str = "127.0.0.1", namespace: str = "") -> Process:
    """The server as a process, not started yet; *certificates* has ``server.pem`` and ``server.key``."""
    pair = (certificates / "server.pem", certificates / "server.key")
    return Process(
        [sys.executable, "-m", "tests.bench.bare", *pair, str(port), address], log, cwd=REPOSITORY, namespace=namespace
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("certificate", type=Path)
    parser.add_argument("key", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("address", nargs="?", default="127.0.0.1")
    asked = parser.parse_args()
    asyncio.run(serve(asked.certificate, asked.key, asked.port, asked.address))
