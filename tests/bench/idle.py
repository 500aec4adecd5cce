"""B6: thousands of nodes that wait for something to happen, on one core.

A real ``pullprint-cloud`` is confined to one processor; the nodes are in other processes (`crowd`), each with its own
TLS connection and signed requests. What is measured: memory for each, processor while nothing happens, the time until
all know of a change that concerns all, and until all are back after a restart. The baseline is an aiohttp server that
does nothing but park the same number of TLS connections.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.bench import bare, many
from tests.bench.crowd import Crowd, most
from tests.bench.figures import Figure, Target
from tests.rig.office import Cloud
from tests.rig.processes import Process, answers, free_port, wait_until

from pullprint.cloud.store import Store
from pullprint.wire.node import PARK

NODES = 10_000
QUICK = 100
WAKE_LIMIT, BACK_LIMIT = 120.0, 300.0
"""Seconds after which those are counted that have not heard, or are not back."""
ROUNDS = 3
AGAINST = "aiohttp parking as many TLS connections"


@dataclass(frozen=True, slots=True)
class Found:
    """What one server takes."""

    there: int
    """Nodes that came at all."""
    each: float
    """KiB."""
    busy: float
    """Per cent of a core."""
    wake: list[float]
    """Seconds, one for each round."""
    back: float
    """Seconds."""
    deaf: int
    """Nodes that had not heard when that was given up."""
    missing: int
    """The same for those that were not back."""
    failures: int


def run(*, quick: bool) -> Iterator[Figure]:
    """The four figures."""
    count = QUICK if quick else most(NODES)
    watched = 3.0 if quick else 1.2 * PARK
    with many.many(count) as (cloud, store):
        baseline = _bare(cloud, count, watched)
        ours = _cloud(cloud, store, count, watched)
    nodes = f"{count:,} nodes"
    yield Figure("B6", f"memory for each of {nodes}", "KiB", ours.each, baseline.each, AGAINST,
                 Target("value", "most", 40.0), {"came at all": ours.there, "baseline": baseline.there})  # fmt: skip
    yield Figure("B6", f"idle, {nodes}", "% of a core", ours.busy, baseline.busy, AGAINST, Target("value", "most", 2.0),
                 {"polls each second": count / PARK, "seconds watched": watched})  # fmt: skip
    yield Figure("B6", f"wake all {nodes}", "s", sorted(ours.wake)[len(ours.wake) // 2],
                 sorted(baseline.wake)[len(baseline.wake) // 2], AGAINST, Target("value", "most", 1.5),
                 {"each round": ours.wake, "each round of the baseline": baseline.wake,
                  "had not heard by then": ours.deaf})  # fmt: skip
    yield Figure("B6", f"all {nodes} back after a restart", "s", ours.back, baseline.back, AGAINST,
                 Target("value", "most", 60.0), {"tries that failed": ours.failures, "not back at all": ours.missing,
                  "tries that failed, baseline": baseline.failures, "not back, baseline": baseline.missing})  # fmt: skip


def _bare(cloud: Cloud, count: int, watched: float) -> Found:
    port = free_port()
    server = bare.process(cloud.root / "certificates", port, cloud.root / "bare.log")

    def start() -> None:
        server.start(ready=("127.0.0.1", port), timeout=30)

    def wake() -> None:
        _post(cloud, port)

    start()
    with Crowd(port, cloud.authority, count, bare=True, pace=200.0) as crowd:
        return _measure(server, start, wake, crowd, count, watched)


def _cloud(cloud: Cloud, store: Store, count: int, watched: float) -> Found:
    cloud.start()
    with Crowd(cloud.port, cloud.authority, count) as crowd:
        return _measure(cloud.process, cloud.start, lambda: store.transact(many.tell_all), crowd, count, watched)


def _measure(
    server: Process, start: Callable[[], None], wake: Callable[[], None], crowd: Crowd, count: int, watched: float
) -> Found:
    """*server* runs already; it is ended."""
    try:
        os.sched_setaffinity(server.pid, {max(os.sched_getaffinity(0))})
        empty = many.resident(server.pid)
        with suppress(TimeoutError):
            crowd.wait("connects", count, crowd.coming)
        _rest(server)
        there = crowd.sum("parked")
        each = (many.resident(server.pid) - empty) / max(there, 1)
        began, used = time.monotonic(), many.processor(server.pid)
        time.sleep(watched)
        # What is less than a tick counts as one.
        seconds = max(many.processor(server.pid) - used, 1 / many.TICK)
        busy = 100 * seconds / (time.monotonic() - began)
        waking, deaf = [], 0
        for _ in range(ROUNDS):
            known = crowd.sum("woken")
            began = time.monotonic()
            wake()
            with suppress(TimeoutError):
                crowd.wait("woken", known + count, WAKE_LIMIT)
            deaf = max(0, known + count - crowd.sum("woken"))
            waking.append(WAKE_LIMIT if deaf else crowd.latest("woken_last") - began)
            _rest(server)
        known, failures = crowd.sum("connects"), crowd.sum("failures")
        began = time.monotonic()
        server.stop()
        start()
        os.sched_setaffinity(server.pid, {max(os.sched_getaffinity(0))})
        with suppress(TimeoutError):
            crowd.wait("connects", known + count, BACK_LIMIT)
        missing = max(0, known + count - crowd.sum("connects"))
        back = time.monotonic() - began if missing else crowd.latest("connected_last") - began
        return Found(there, each, busy, waking, back, deaf, missing, crowd.sum("failures") - failures)
    finally:
        server.stop()


def _rest(server: Process) -> None:
    """Until what is left to do is what 10,000 idle nodes cause, or five seconds have passed."""
    until = time.monotonic() + 5.0

    def quiet() -> bool:
        used = many.processor(server.pid)
        time.sleep(0.5)
        return many.processor(server.pid) - used < 0.1 or time.monotonic() > until

    wait_until("a server at rest", quiet, 60)


def _post(cloud: Cloud, port: int) -> None:
    """Wake the crowd of the bare server."""
    import http.client
    import ssl

    assert answers(("127.0.0.1", port))
    context = ssl.create_default_context(cafile=str(cloud.authority))
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=60)
    try:
        connection.request("POST", "/wake/crowd", b"{}")
        connection.getresponse().read()
    finally:
        connection.close()
