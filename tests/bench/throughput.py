"""B3: jobs per second from the first submit through cupsd to a durable hold, beside cupsd draining to a socket.

Both get the same one-page PDF by IPP from one client for each queue. The baseline is plain CUPS at its quickest: a
raw queue to a printer on this machine that discards everything. It ends with the last document's last byte; ours with
the last job that the node counts as held, which is after its fsyncs.
"""

import time
from collections.abc import Iterator
from statistics import median

from tests.bench.figures import Figure, Target
from tests.bench.parts import Control, debian_cups, submit
from tests.bench.sink import Sink
from tests.rig.cups import PPD, PrivateCups
from tests.rig.documents import pdf
from tests.rig.office import Office
from tests.rig.processes import wait_until

CONTENT_TYPE = "application/pdf"
QUEUES = (1, 8)


def run(*, quick: bool) -> Iterator[Figure]:
    """One figure for each number of queues."""
    jobs, rounds = (16, 1) if quick else (160, 3)
    document = pdf()
    with Office() as office, Sink() as sink, debian_cups(office) as cups:
        for number in range(max(QUEUES)):
            cups.add_queue(f"held{number}", "pullprint:/", PPD)
            cups.add_queue(f"plain{number}", sink.uri)
        control = Control(office.node.control)
        for queues in QUEUES:
            values, baseline = [], []
            for _ in range(rounds):
                baseline.append(_drain(cups, sink, document, jobs, queues))
                values.append(_hold(cups, office, control, document, jobs, queues))
                control.delete_all()
            yield Figure(
                "B3", f"submit to durable hold, {queues} queue{'s' if queues > 1 else ''}", "jobs/s",
                median(values), median(baseline), "plain CUPS to a socket sink", Target("ratio", "least", 0.5),
                {"jobs a round": jobs, "rounds": values, "rounds of the baseline": baseline},
            )  # fmt: skip
        control.close()


def _drain(cups: PrivateCups, sink: Sink, document: bytes, jobs: int, queues: int) -> float:
    began = time.monotonic()
    submit(cups, [f"plain{number}" for number in range(queues)], document, jobs, content_type=CONTENT_TYPE)
    arrivals = [sink.arrival() for _ in range(jobs)]
    if any(arrival.size != len(document) for arrival in arrivals):
        raise RuntimeError("plain CUPS did not print what it was given")
    _wait_idle(cups)
    return jobs / (max(arrival.end for arrival in arrivals) - began)


def _hold(cups: PrivateCups, office: Office, control: Control, document: bytes, jobs: int, queues: int) -> float:
    directory = office.node.state / "jobs"
    began = time.monotonic()
    submit(cups, [f"held{number}" for number in range(queues)], document, jobs, content_type=CONTENT_TYPE)
    # Sealed files can be counted without a word to the daemon, which is busy; the last rows follow in milliseconds.
    wait_until("sealed jobs", lambda: sum(1 for path in directory.iterdir() if path.name[0] != ".") >= jobs, 120, 0.005)
    wait_until("held jobs", lambda: control.held() >= jobs, 30, 0.002)
    ended = time.monotonic()
    _wait_idle(cups)
    return jobs / (ended - began)


def _wait_idle(cups: PrivateCups) -> None:
    connection = cups.connection()
    wait_until("an idle cupsd", lambda: not connection.getJobs(which_jobs="not-completed"), 60, 0.05)
