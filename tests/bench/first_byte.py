"""B1: from Print to the printer's first byte, beside ``lp -i N -H resume`` on plain CUPS.

Both documents wait in their queues, and both travel through CUPS's own ``socket`` backend. Ours is released at the
node's control socket by a client that has its connection already, as a page or a panel does; the cloud, on this
machine, makes the order. CUPS's own client has to be started, as nobody can keep a running ``lp``.

Once with a node alone, which votes by itself, and once with three, where the job is released at the host that it was
printed from when two others hold it, too: then one of them has to vote before the first byte.
"""

import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

from tests.bench.figures import Figure, Target, percentile
from tests.bench.parts import Control, debian_cups
from tests.bench.sink import Sink
from tests.rig.cups import PrivateCups
from tests.rig.office import Office, Person
from tests.rig.processes import wait_until

DOCUMENT = b"\x1b%-12345X@PJL\r\n" + bytes(1 << 16)
STEPS = ("release", "prepared", "committed", "sending")
SPANS = ("to the cloud", "order made and checked", "vote", "job opened", "backend and first byte")
"""What lies before each step of the trace, and behind the last."""


def run(*, quick: bool) -> Iterator[Figure]:
    """p50 and p99 of both, and where ours spends its time; with one node and with three."""
    for nodes in (1, 3):
        yield from _compare(nodes, 10 if quick else 120)


def _compare(nodes: int, count: int) -> Iterator[Figure]:
    with Office(nodes=nodes) as office, Sink() as ours, Sink() as plain, debian_cups(office) as cups:
        office.add_printer("Sink", ours.uri)
        cups.add_queue("plain", plain.uri)
        control, me = Control(office.node.control), office.person()
        resumes = [_hold_plain(cups) for _ in range(count)]
        for _ in range(count):
            office.cups.lp("pullprint", DOCUMENT, "raw", user=office.account, title="bench")
        wait_until("held jobs", lambda: control.held() >= count, 60, every=0.1)
        control.wait_quiet()
        wait_until("copies of all jobs", lambda: control.request("GET", "/v1/mesh")["short"] == 0, 120, every=0.1)
        jobs = [job["id"] for job in control.jobs()]
        values, baseline, spans = [], [], []
        for job, resume in zip(jobs, resumes, strict=True):
            baseline.append(_resume(cups, resume, plain))
            value, began = _release(control, job, ours)
            values.append(value)
            spans.append(_spans(me, job, began, value))
        control.close()
    detail = {name: median(times) for name, times in zip(SPANS, zip(*spans, strict=True), strict=True)}
    against = "lp -i N -H resume, raw queue"
    what = "release to first byte" + (f", {nodes} nodes" if nodes > 1 else "")
    yield Figure(
        "B1", f"{what}, p50", "ms", percentile(values, 50), percentile(baseline, 50), against,
        Target("ratio", "most", 1.0), detail,
    )  # fmt: skip
    yield Figure(
        "B1", f"{what}, p99", "ms", percentile(values, 99), percentile(baseline, 99), against,
        Target("value", "most", 50.0), {"n": len(values), "slowest": max(values), "slowest baseline": max(baseline)},
    )  # fmt: skip


def _hold_plain(cups: PrivateCups) -> int:
    answer = cups.run("lp", "-d", "plain", "-H", "hold", "-o", "raw", data=DOCUMENT)
    return int(answer.split("plain-")[1].split()[0])


def _resume(cups: PrivateCups, job: int, sink: Sink) -> float:
    environment = cups.environment()
    began = time.monotonic()
    with subprocess.Popen(["lp", "-i", str(job), "-H", "resume"], env=environment) as lp:
        first = sink.first_byte()
    if lp.returncode:
        raise RuntimeError(f"lp: exit {lp.returncode}")
    sink.arrival()
    cups.wait_job(job)
    return (first - began) * 1_000


def _release(control: Control, job: str, sink: Sink) -> tuple[float, float]:
    """Milliseconds, and when it was pressed by the wall clock, which traces keep."""
    wall, began = time.time(), time.monotonic()
    control.request("POST", f"/v1/jobs/{job}/release", {"printer": "Sink"})
    first = sink.first_byte()
    sink.arrival()

    def done() -> bool:
        state = control.request("GET", f"/v1/jobs/{job}")["state"]
        return bool(state == "done" and control.request("GET", "/v1/status")["unreported"] == 0)

    wait_until("the end of a job", done)
    return (first - began) * 1_000, wall


def _spans(me: Person, job: str, began: float, total: float) -> list[float]:
    """Milliseconds for each of `SPANS`; a step's time is that of the beginning of its transaction."""
    at = {step["event"]: (step["at"] - began) * 1_000 for step in me.trace(job)}
    points = [0.0, *(at[step] for step in STEPS), total]
    return [later - earlier for earlier, later in pairwise(points)]
