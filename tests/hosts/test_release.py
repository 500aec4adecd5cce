"""Whoever holds a job can print it: also when the host that it came from is off, hangs or cannot reach the printer."""

import json
import time

import pytest
from tests.hosts.trace import hosts_of, press_until, printed_by
from tests.rig.office import NODES, Person
from tests.rig.processes import wait_until
from tests.rig.sites import Hosts, document

NAMES = NODES[:3]


@pytest.mark.parametrize("name", NAMES)
def test_each_holder_prints_when_it_is_asked_in_a_terminal(hosts: Hosts, me: Person, name: str) -> None:
    title = f"terminal-{name}"
    hosts.submit("reception", title)
    job = hosts.wait_copies(title)
    assert sorted(job["holders"]) == sorted(NAMES) and job["awake"] == 3
    hosts.host(name).pullprint("release", job["id"], "--printer", "lobby")
    me.wait_job(title, "done")
    assert hosts.printed_whole(document(title)) == hosts.printed(title) == 1
    assert printed_by(me, job["id"]) == name


@pytest.mark.parametrize("printer", ["lobby", "labels"])
def test_the_page_finds_a_holder(hosts: Hosts, me: Person, printer: str) -> None:
    title = f"page-{printer}"
    hosts.submit("workshop", title)
    job = hosts.wait_copies(title)
    me.release(job["id"], printer)
    me.wait_job(title, "done")
    assert hosts.printed_whole(document(title)) == hosts.printed(title) == 1
    assert printed_by(me, job["id"]) in NAMES


def test_a_printed_job_is_destroyed_at_every_holder(hosts: Hosts, me: Person) -> None:
    hosts.submit("reception", "destroyed")
    job = hosts.wait_copies("destroyed")
    copies = [node.state / "jobs" / job["id"] for node in hosts.nodes]
    assert len({path.read_bytes() for path in copies}) == 1, "the copies differ"
    me.release(job["id"], "lobby")
    me.wait_job("destroyed", "done")
    deadline = time.monotonic() + 20
    while any(path.exists() for path in copies):
        assert time.monotonic() < deadline, [path for path in copies if path.exists()]
        time.sleep(0.05)


def test_a_host_that_is_switched_off_leaves_its_jobs_to_the_others(hosts: Hosts, me: Person) -> None:
    hosts.submit("reception", "switched-off")
    job = hosts.wait_copies("switched-off")
    hosts.power_off("reception")
    me.release(job["id"], "lobby")
    me.wait_job("switched-off", "done", 30)
    assert hosts.printed_whole(document("switched-off")) == hosts.printed("switched-off") == 1
    assert printed_by(me, job["id"]) in ("workshop", "accounting")
    hosts.power_on("reception")
    hosts.host("reception").wait_connected(60)
    press_until(me, "switched-off", "lobby", "done")
    assert hosts.printed("switched-off") == 1


@pytest.mark.parametrize("printer", ["lobby", "labels"])
@pytest.mark.parametrize("only", NAMES)
def test_the_one_holder_that_reaches_the_printer_prints(hosts: Hosts, me: Person, only: str, printer: str) -> None:
    title = f"only-{only}-{printer}"
    hosts.submit("reception", title)
    job = hosts.wait_copies(title)
    hosts.cut(printer, *(name for name in NAMES if name != only))
    me.release(job["id"], printer)
    me.wait_job(title, "done", 90)
    assert hosts.printed_whole(document(title)) == hosts.printed(title) == 1
    assert printed_by(me, job["id"]) == only


def test_a_releaser_that_was_killed_is_replaced(hosts: Hosts, me: Person) -> None:
    hosts.submit("reception", "killed")
    job = hosts.wait_copies("killed")
    hosts.kill("reception")
    began = time.monotonic()
    me.release(job["id"], "lobby")
    me.wait_job("killed", "done", 30)
    assert time.monotonic() - began < 12
    assert hosts.printed("killed") == 1
    assert printed_by(me, job["id"]) in ("workshop", "accounting")


def test_a_releaser_that_hangs_is_replaced_and_prints_nothing_when_it_goes_on(hosts: Hosts, me: Person) -> None:
    hosts.submit("reception", "hangs")
    job = hosts.wait_copies("hangs")
    hosts.stop("reception")
    began = time.monotonic()
    me.release(job["id"], "lobby")
    me.wait_job("hangs", "done", 30)
    assert time.monotonic() - began < 12
    taken = [step["text"] for step in me.trace(job["id"]) if step["event"] == "take-over"]
    assert len(taken) == 1 and "takes over from reception" in taken[0], me.trace(job["id"])
    assert printed_by(me, job["id"]) in ("workshop", "accounting")
    hosts.cont("reception")
    hosts.host("reception").wait_connected(60)
    time.sleep(3)
    assert hosts.printed("hangs") == 1
    assert len(hosts_of(me, job["id"], "printed")) == 1


@pytest.mark.parametrize("clock", [86_400.0, -86_400.0], ids=["ahead", "behind"])
def test_a_host_whose_clock_is_a_day_off_costs_no_job_and_is_told(hosts: Hosts, me: Person, clock: float) -> None:
    """The cloud does not believe it, so it is as good as away; what is placed meanwhile has its other copies."""
    before, after = f"before {clock}", f"after {clock}"
    hosts.submit("reception", before)
    hosts.wait_copies(before)
    wrong = hosts.host("workshop")
    wrong.process.stop()
    hosts.start("workshop", clock=clock)
    wait_until("its complaint", lambda: "clock" in json.loads(wrong.pullprint("status", "--json"))["sentence"], 30)
    hosts.submit("reception", after)
    for title in (before, after):
        job = hosts.wait_copies(title, 2)
        me.release(job["id"], "lobby")
        me.wait_job(title, "done", 30)
        assert printed_by(me, job["id"]) != "workshop"
    hosts.restart("workshop")
    time.sleep(1)
    assert hosts.printed(before) == hosts.printed(after) == 1
