"""Hosts that are suspended or switched off in order leave their votes to the cloud, so that the last one awake prints."""

import json
import time

import pytest
from tests.hosts.trace import hosts_of, press_until, printed_by
from tests.rig.office import Person
from tests.rig.sites import Hosts, document

ASLEEP = ("reception", "workshop")


def lend(hosts: Hosts, name: str) -> int:
    return int(json.loads(hosts.host(name).pullprint("sleep", "--json"))["lent"])


@pytest.mark.parametrize("how", ["suspended", "off"])
def test_last_one_awake_prints_with_the_votes_of_those_that_sleep(hosts: Hosts, me: Person, how: str) -> None:
    title = f"asleep {how}"
    hosts.submit("reception", title)
    job = hosts.wait_copies(title)
    for name in ASLEEP:
        assert lend(hosts, name) >= 1
        (hosts.stop if how == "suspended" else hosts.power_off)(name)
    press_until(me, title, "lobby", "done")
    assert printed_by(me, job["id"]) == "accounting"
    assert hosts.printed_whole(document(title)) == hosts.printed(title) == 1
    said = [step["text"] for step in me.trace(job["id"]) if step["host"] == "cloud" and step["event"] == "voted"]
    assert said and all(text.endswith("which is asleep, so that accounting may print it.") for text in said)
    for name in ASLEEP:
        (hosts.cont if how == "suspended" else hosts.power_on)(name)
        hosts.host(name).wait_connected(60)
    time.sleep(2)
    assert hosts.printed(title) == 1 and len(hosts_of(me, job["id"], "printed")) == 1


def test_host_that_woke_up_prints_by_itself_again(hosts: Hosts, me: Person) -> None:
    title = "awake again"
    hosts.submit("reception", title)
    job = hosts.wait_copies(title)
    assert lend(hosts, "reception") >= 1
    hosts.power_off("reception")
    hosts.power_on("reception")
    hosts.host("reception").wait_connected(60)
    hosts.kill("workshop")
    hosts.host("reception").pullprint("release", job["id"], "--printer", "lobby")
    me.wait_job(title, "done")
    assert printed_by(me, job["id"]) == "reception" and hosts.printed(title) == 1
    assert not any("asleep" in step["text"] for step in me.trace(job["id"])), "it had its vote back"


def test_command_takes_little_time_and_may_be_repeated(hosts: Hosts, me: Person) -> None:
    hosts.submit("reception", "quick")
    hosts.wait_copies("quick")
    begin = time.monotonic()
    assert lend(hosts, "reception") >= 1
    assert time.monotonic() - begin < 3
    hosts.host("reception").pullprint("wake")
    assert json.loads(hosts.host("reception").pullprint("wake", "--json"))["lent"] == 0
