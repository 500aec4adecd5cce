"""kill -9 and SIGSTOP of the releaser at each labelled point: printed once by another, or uncertain; never twice."""

import time

import pytest
from tests.hosts.trace import hosts_of, press_until, printed_by
from tests.rig.office import Person
from tests.rig.processes import wait_until
from tests.rig.sites import Hosts

pytestmark = pytest.mark.long

BEFORE_VOTES = ["order-verified", "prepared", "checked"]
AFTER_VOTES = ["voted"]
AFTER_FIRST_BYTE = ["sending", "half-sent", "delivered"]
PRINTERS = ["lobby", "labels"]


def release_at(hosts: Hosts, me: Person, title: str, printer: str, kill_at: str = "", stop_at: str = "") -> str:
    """Start reception, which gets the order, to end so; release one of its jobs; the job's id."""
    hosts.restart("reception", kill_at, stop_at)
    hosts.submit("reception", title)
    job = str(hosts.wait_copies(title)["id"])
    me.release(job, printer)
    return job


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("label", BEFORE_VOTES)
def test_killed_before_the_votes_another_holder_prints_by_itself(
    hosts: Hosts, me: Person, label: str, printer: str
) -> None:
    title = f"killed-{label}-{printer}"
    job = release_at(hosts, me, title, printer, kill_at=label)
    hosts.wait_dead("reception")
    me.wait_job(title, "done", 60)
    assert hosts.printed(title) == 1
    assert printed_by(me, job) in ("workshop", "accounting")
    hosts.start("reception")
    hosts.host("reception").wait_connected(60)
    time.sleep(1)
    assert hosts.printed(title) == 1


@pytest.mark.parametrize("label", AFTER_VOTES)
def test_killed_between_votes_and_first_byte_it_proves_afterwards_that_it_sent_nothing(
    hosts: Hosts, me: Person, label: str
) -> None:
    title = f"killed-{label}"
    release_at(hosts, me, title, "lobby", kill_at=label)
    hosts.wait_dead("reception")
    time.sleep(8)
    assert hosts.printed(title) == 0 and (me.job(title) or {})["state"] in (
        "held",
        "uncertain",
        "prepared",
        "committed",
    )
    hosts.start("reception")
    hosts.host("reception").wait_connected(60)
    press_until(me, title, "lobby", "done", timeout=60)
    assert hosts.printed(title) == 1


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("label", AFTER_FIRST_BYTE)
def test_killed_after_the_first_byte_nobody_prints_again(hosts: Hosts, me: Person, label: str, printer: str) -> None:
    title = f"killed-{label}-{printer}"
    job = release_at(hosts, me, title, printer, kill_at=label)
    hosts.wait_dead("reception")
    state = press_until(me, title, "lobby", "uncertain", "done", timeout=90)["state"]
    assert hosts.printed(title) <= 1
    assert state == "uncertain" or hosts.printed(title) == 1, me.trace(job)
    hosts.start("reception")
    hosts.host("reception").wait_connected(60)
    wait_until("its end", lambda: (me.job(title) or {})["state"] in ("uncertain", "done"), 30)
    time.sleep(2)
    assert hosts.printed(title) <= 1
    if (me.job(title) or {})["state"] == "uncertain":
        me.post(f"/api/v1/jobs/{job}/settle", {})
    me.wait_job(title, "done", 30)


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("label", BEFORE_VOTES)
def test_frozen_before_the_votes_it_is_overtaken_and_stays_silent(
    hosts: Hosts, me: Person, label: str, printer: str
) -> None:
    title = f"frozen-{label}-{printer}"
    job = release_at(hosts, me, title, printer, stop_at=label)
    hosts.wait_still("reception")
    me.wait_job(title, "done", 60)
    assert printed_by(me, job) in ("workshop", "accounting")
    hosts.cont("reception")
    hosts.host("reception").wait_connected(60)
    time.sleep(3)
    assert hosts.printed(title) == 1
    assert len(hosts_of(me, job, "printed")) == 1


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("label", [*AFTER_VOTES, *AFTER_FIRST_BYTE])
def test_frozen_after_the_votes_nobody_overtakes_it(hosts: Hosts, me: Person, label: str, printer: str) -> None:
    title = f"frozen-{label}-{printer}"
    job = release_at(hosts, me, title, printer, stop_at=label)
    hosts.wait_still("reception")
    time.sleep(12)
    assert hosts.printed(title) <= 1
    assert not set(hosts_of(me, job, "printed")) & {"workshop", "accounting"}
    hosts.cont("reception")
    hosts.host("reception").wait_connected(60)
    press_until(me, title, printer, "uncertain", "done", timeout=60)
    time.sleep(2)
    assert hosts.printed(title) <= 1


@pytest.mark.parametrize("label", ["copy-received", "copy-keys", "copy-renamed", "copy-installed"])
def test_a_holder_that_is_killed_while_it_receives_a_copy_costs_no_job(hosts: Hosts, me: Person, label: str) -> None:
    hosts.restart("workshop", kill_at=label)
    hosts.submit("reception", label)
    # Whoever did not answer a moment ago, such as in the test before, is passed over for 30 s.
    hosts.wait_dead("workshop", 60)
    hosts.start("workshop")
    hosts.host("workshop").wait_connected(60)
    job = hosts.wait_copies(label, 2, 60)
    me.release(job["id"], "lobby")
    me.wait_job(label, "done", 60)
    assert hosts.printed(label) == 1


@pytest.mark.parametrize("label", ["deciding:release_for_user", "decided:release_for_user"])
def test_a_cloud_that_is_killed_while_it_orders_prints_at_most_once(hosts: Hosts, me: Person, label: str) -> None:
    title = f"cloud-{label.partition(':')[0]}"
    hosts.submit("reception", title)
    job = hosts.wait_copies(title)
    hosts.cloud.process.stop()
    hosts.start("cloud", kill_at=label)
    with pytest.raises(OSError):
        me.release(job["id"], "lobby")
    hosts.wait_dead("cloud")
    hosts.start("cloud")
    press_until(me, title, "lobby", "done")
    assert hosts.printed(title) == 1
