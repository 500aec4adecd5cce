"""B2: from Print on the page to the order at the node, while thousands of other nodes wait with open polls.

A person, whose session and connection are there already, releases a job over the web API; a node's poll is answered
with the order. The clock runs from the request's sending to the moment when the node has read the whole answer. All
nodes but the one are a `crowd`. The baseline is an aiohttp server on which one TLS request wakes another that parks,
with as many others parking; each side has its crowd all the time, and the two are measured in turns.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from tests.bench import bare, many
from tests.bench.crowd import Crowd, most
from tests.bench.figures import Figure, Target, percentile
from tests.cloud.office import NodeClient, Office, ShiftedClock
from tests.rig.office import ORGANISATION, Cloud
from tests.rig.processes import free_port

from pullprint.cloud import enrolment, printers
from pullprint.cloud.config import Settings
from pullprint.cloud.store import Store

IDLE = 10_000
QUICK = 50
USER = "ada@example.com"
PATIENCE = 30.0


def run(*, quick: bool) -> Iterator[Figure]:
    """p50 and p99."""
    # Two servers, each with as many; a client's ports are for both.
    count, rounds = (QUICK, 10) if quick else (most(IDLE), 300)
    with many.many(count) as (cloud, store):
        password = json.loads(cloud.admin("user", "add", ORGANISATION, USER, "--json"))["password"]
        code = store.transact(enrolment.new_join_code, ORGANISATION, many.site_of(0), 30, managed=True)
        store.transact(printers.add, ORGANISATION, many.site_of(0), "Foyer", "ipp://127.0.0.1:8631/ipp/print", "")
        cloud.start()
        port = free_port()
        server = bare.process(cloud.root / "certificates", port, cloud.root / "bare.log")
        server.start(ready=("127.0.0.1", port), timeout=30)
        try:
            with (
                Crowd(cloud.port, cloud.authority, count, processes=2) as crowd,
                Crowd(port, cloud.authority, count, bare=True, processes=2) as others,
            ):
                for each in (crowd, others):
                    each.wait("connects", count, each.coming)
                values, answered, baseline = asyncio.run(_measure(cloud, store, port, password, code, rounds))
                idle = [each.sum("parked") for each in (crowd, others)]
        finally:
            server.stop()
    against = "aiohttp: one request wakes another"
    detail = {"idle polls": float(idle[0]), "idle polls of the baseline": float(idle[1]), "n": float(rounds),
              "until the person has the answer": percentile(answered, 50)}  # fmt: skip
    what = f"order to node, {count:,} idle polls"
    yield Figure("B2", f"{what}, p50", "ms", percentile(values, 50), percentile(baseline, 50), against,
                 Target("value", "most", 4.0), detail)  # fmt: skip
    yield Figure("B2", f"{what}, p99", "ms", percentile(values, 99), percentile(baseline, 99), against,
                 Target("value", "most", 25.0), {"slowest": max(values), "slowest baseline": max(baseline)})  # fmt: skip


async def _measure(
    cloud: Cloud, store: Store, port: int, password: str, code: str, rounds: int
) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of orders, of their answers and of the baseline's wake-ups."""
    context = ssl.create_default_context(cafile=str(cloud.authority))
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as http:
        office = Office(cloud.url, store, ShiftedClock(), http, _settings(cloud), cloud.authority)
        node = NodeClient(office)
        await node.enrol(code)
        await node.fetch_config()
        holdings = {"epoch": node.epoch, "version": "1", "key": node.enrolment("")["key"], "last_event": 0, "jobs": []}
        await node.call("POST", "/node/v1/reconcile", holdings)
        jobs = [await node.hold(owner=USER) for _ in range(rounds)]
        token = await office.sign_in(USER, password)
        await _drain(node)
        values, answered, baseline = [], [], []
        for job in jobs:
            baseline.append(await _wake(http, port))
            value, answer = await _order(office, node, job, token)
            values.append(value)
            answered.append(answer)
        return values, answered, baseline


async def _drain(node: NodeClient) -> None:
    """What waits in the inbox already is not what is measured."""
    try:
        async with asyncio.timeout(2.0):
            while True:
                await node.poll()
    except TimeoutError:
        pass


async def _order(office: Office, node: NodeClient, job: str, token: str) -> tuple[float, float]:
    """Milliseconds until the node has the order, and until the person has an answer."""
    waiting = asyncio.create_task(_stamped(node))
    await asyncio.sleep(0.05)  # until it parks, and the one before is quite over
    began = time.monotonic()
    answer = await office.ask("POST", f"/api/v1/jobs/{job}/release", {"printer": "Foyer"}, token)
    answered = time.monotonic()
    if answer.status != 202:
        raise RuntimeError(f"{answer.status} {answer.body}")
    async with asyncio.timeout(PATIENCE):
        return (await waiting - began) * 1_000, (answered - began) * 1_000


async def _stamped(node: NodeClient) -> float:
    """When the next order had arrived."""
    while True:
        items = await node.poll()
        at = time.monotonic()
        if any(item["kind"] == "order" for item in items):
            return at


async def _wake(http: aiohttp.ClientSession, port: int) -> float:
    url = f"https://localhost:{port}"

    async def parked(since: int) -> float:
        async with http.get(f"{url}/park/desk", params={"since": str(since)}) as response:
            await response.read()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}")
        return time.monotonic()

    async with http.get(f"{url}/times/desk") as response:
        since = int(await response.text())
    waiting = asyncio.create_task(parked(since))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    async with http.post(f"{url}/wake/desk", data=b"{}") as response:
        await response.read()
    async with asyncio.timeout(PATIENCE):
        return (await waiting - began) * 1_000


def _settings(cloud: Cloud) -> Settings:
    folder = cloud.root / "certificates"
    return Settings(certificate=Path(folder / "server.pem"), key=Path(folder / "server.key"), state_dir=cloud.state)
