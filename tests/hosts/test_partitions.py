"""The network breaks in every way that it can, while two orders for one job are under way: at most one is printed."""

import time
from collections.abc import Iterator

import pytest
from tests.hosts.trace import press_until
from tests.rig.office import NODES, Answer, Person
from tests.rig.processes import wait_until
from tests.rig.sites import CLOUD, Hosts

MEMBERS = (*NODES[:3], CLOUD)


def shapes(members: tuple[str, ...]) -> Iterator[list[list[str]]]:
    """Every way to divide *members* into groups."""
    if not members:
        yield []
        return
    first, rest = members[0], members[1:]
    for shape in shapes(rest):
        yield [[first], *shape]
        for number, group in enumerate(shape):
            yield [*shape[:number], [first, *group], *shape[number + 1 :]]


SHAPES = sorted(shapes(MEMBERS), key=lambda shape: (len(shape), shape))


def written(shape: list[list[str]]) -> str:
    return "|".join("".join(name[0] for name in group) for group in shape)


def test_every_shape_is_tried() -> None:
    assert len(SHAPES) == 15
    assert len({written(shape) for shape in SHAPES}) == 15


def press(me: Person, job: str, printer: str, seconds: float) -> None:
    """Press Print for *printer* again and again, whatever the answer is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            me.release(job, printer)
        except Answer as answer:
            assert answer.status == 409, answer
        time.sleep(0.5)


@pytest.mark.long
@pytest.mark.parametrize("label", ["prepared", "checked"])
@pytest.mark.parametrize("shape", SHAPES, ids=written)
def test_two_orders_in_a_broken_network_print_at_most_once(
    hosts: Hosts, me: Person, shape: list[list[str]], label: str
) -> None:
    """The first order's releaser stands still at *label*, the network breaks, another printer is asked for, the first
    one goes on; then all is mended."""
    title = f"{label}-{written(shape)}"
    hosts.restart("reception", stop_at=label)
    hosts.submit("reception", title)
    job = hosts.wait_copies(title)["id"]
    me.release(job, "lobby")
    hosts.wait_still("reception")
    hosts.partition(*shape)
    press(me, job, "labels", 6)
    hosts.cont("reception")
    press(me, job, "labels", 4)
    assert hosts.printed(title) <= 1
    hosts.heal()
    for node in hosts.nodes:
        node.wait_connected(60)
    end = press_until(me, title, "labels", "done", "uncertain")["state"]
    assert hosts.printed(title) <= 1
    assert end == "uncertain" or hosts.printed(title) == 1


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES, ids=written)
def test_a_job_that_is_taken_in_by_a_broken_network_is_placed_when_it_is_mended(
    hosts: Hosts, me: Person, shape: list[list[str]]
) -> None:
    title = f"placed-{written(shape)}"
    hosts.partition(*shape)
    hosts.submit("reception", title)
    hosts.network.heal()
    wait_until("the job at the cloud", lambda: me.job(title), 60)
    job = hosts.wait_copies(title, timeout=90)
    me.release(job["id"], "lobby")
    me.wait_job(title, "done", 30)
    assert hosts.printed(title) == 1


def test_a_way_that_is_open_in_one_direction_only_prints_at_most_once(hosts: Hosts, me: Person) -> None:
    hosts.submit("reception", "one-way")
    job = hosts.wait_copies("one-way")["id"]
    for name in ("workshop", "accounting"):
        hosts.network.cut_one_way(name, "reception")  # votes are asked for, and the answers vanish
    me.release(job, "lobby")
    time.sleep(6)
    assert hosts.printed("one-way") <= 1
    hosts.heal()
    end = press_until(me, "one-way", "lobby", "done", "uncertain")["state"]
    assert hosts.printed("one-way") <= 1
    assert end == "uncertain" or hosts.printed("one-way") == 1
