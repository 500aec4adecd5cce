"""What a job's trace says, and how its owner gets it printed."""

import time
from typing import Any

import pytest
from tests.rig.office import Answer, Person
from tests.rig.processes import wait_until


def hosts_of(me: Person, job: str, event: str) -> list[str]:
    """The hosts at which *event* happened, in order."""
    return [step["host"] for step in me.trace(job) if step["event"] == event]


def printed_by(me: Person, job: str) -> str:
    """The host that says that it printed the job, which must be one."""
    wait_until("somebody's word that it was printed", lambda: hosts_of(me, job, "printed"))
    (name,) = hosts_of(me, job, "printed")
    return name


def press_until(me: Person, title: str, printer: str, *ends: str, timeout: float = 100.0) -> dict[str, Any]:
    """Press Print until the job is in one of the states *ends*, as a person would."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        job = me.job(title) or {}
        if job.get("state") in ends:
            return job
        try:
            if job.get("state") == "held":
                me.release(job["id"], printer)
        except Answer as answer:
            assert answer.status == 409, answer
        time.sleep(0.3)
    job = me.job(title) or {}
    pytest.fail(f"{title} is {job}: {me.trace(job['id']) if job else ''}")
