"""kill -9 of everything, everywhere: afterwards each job is held, or was printed exactly once."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig.cups import PPD
from tests.rig.office import Answer, Office, Person
from tests.rig.printers import RawPrinter
from tests.rig.processes import wait_until

INTAKE = ["line-received", "sealing", "sealed", "indexed"]
BEFORE_FIRST_BYTE = ["order-verified", "prepared", "checked"]
AFTER_FIRST_BYTE = ["sending", "half-sent", "delivered"]
CLOUD_RELEASE = ["deciding:release_for_user", "decided:release_for_user"]
CLOUD_REPORT = ["deciding:take", "decided:take"]


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    with Office() as office:
        yield office


@pytest.fixture(scope="module")
def sink(office: Office) -> Iterator[RawPrinter]:
    with RawPrinter() as printer:
        office.add_printer("Sink", printer.uri)
        yield printer


@pytest.fixture
def me(office: Office) -> Person:
    return office.person()


def submit(office: Office, title: str, document: bytes) -> int:
    return office.cups.lp("pullprint", document, "raw", user=office.account, title=title)


def wait_dead(process: object) -> None:
    wait_until("the kill", lambda: not process.running, 20)  # type: ignore[attr-defined]
    process.stop()  # type: ignore[attr-defined]


def unique(title: str) -> bytes:
    return (title.encode() + b" ") * 2_000


def times_printed(sink: RawPrinter, document: bytes) -> int:
    return sum(document[:200] in received for received in sink.received)


@pytest.mark.parametrize("label", INTAKE)
def test_a_node_killed_in_intake_gets_the_job_again_and_holds_it_once(
    office: Office, sink: RawPrinter, me: Person, label: str
) -> None:
    title = f"intake-{label}"
    office.node.process.stop()
    office.node.start(kill_at=label)
    job = submit(office, title, unique(title))
    wait_dead(office.node.process)
    assert office.cups.job_states()[job] != "completed", "CUPS was told that the job is stored"
    office.node.start()
    assert office.cups.wait_job(job, 60) == "completed"
    me.wait_job(title, "held", 40)
    assert [j["title"] for j in me.jobs()].count(title) == 1
    me.release(me.wait_job(title, "held")["id"], "Sink")
    me.wait_job(title, "done", 40)
    assert times_printed(sink, unique(title)) == 1


@pytest.mark.parametrize("label", BEFORE_FIRST_BYTE)
def test_a_node_killed_before_the_first_byte_holds_the_job(
    office: Office, sink: RawPrinter, me: Person, label: str
) -> None:
    title = f"before-{label}"
    office.node.process.stop()
    office.node.start(kill_at=label)
    submit(office, title, unique(title))
    job = me.wait_job(title, "held", 40)
    me.release(job["id"], "Sink")
    wait_dead(office.node.process)
    assert times_printed(sink, unique(title)) == 0
    office.node.start()
    release_until_done(me, job["id"], title)
    assert times_printed(sink, unique(title)) == 1


@pytest.mark.parametrize("label", AFTER_FIRST_BYTE)
def test_a_node_killed_after_the_first_byte_never_prints_again_by_itself(
    office: Office, sink: RawPrinter, me: Person, label: str
) -> None:
    title = f"after-{label}"
    office.node.process.stop()
    office.node.start(kill_at=label)
    submit(office, title, unique(title))
    job = me.wait_job(title, "held", 40)
    me.release(job["id"], "Sink")
    wait_dead(office.node.process)
    office.node.start()
    me.wait_job(title, "uncertain", 40)
    with pytest.raises(Answer):
        me.release(job["id"], "Sink")
    time.sleep(1)
    assert times_printed(sink, unique(title)) <= 1
    me.post(f"/api/v1/jobs/{job['id']}/settle", {})
    me.wait_job(title, "done", 40)


def test_a_node_killed_after_printing_remembers_that_it_printed(office: Office, sink: RawPrinter, me: Person) -> None:
    office.node.process.stop()
    office.node.start(kill_at="ended")
    submit(office, "ended", unique("ended"))
    job = me.wait_job("ended", "held", 40)
    me.release(job["id"], "Sink")
    wait_dead(office.node.process)
    assert (office.node.state / "jobs" / job["id"]).exists()
    office.node.start()
    me.wait_job("ended", "done", 40)
    wait_until("the shredding", lambda: not (office.node.state / "jobs" / job["id"]).exists())
    assert times_printed(sink, unique("ended")) == 1


@pytest.mark.parametrize("label", CLOUD_RELEASE)
def test_a_cloud_killed_while_ordering_prints_at_most_once(
    office: Office, sink: RawPrinter, me: Person, label: str
) -> None:
    title = f"cloud-{label.partition(':')[0]}"
    submit(office, title, unique(title))
    job = me.wait_job(title, "held", 40)
    office.cloud.process.stop()
    office.cloud.start(kill_at=label)
    with pytest.raises((OSError, Answer)):
        me.release(job["id"], "Sink")
    wait_dead(office.cloud.process)
    office.cloud.start()
    office.node.wait_connected(60)
    release_until_done(me, job["id"], title)
    assert times_printed(sink, unique(title)) == 1


@pytest.mark.parametrize("label", CLOUD_REPORT)
def test_a_cloud_killed_while_it_is_told_learns_it_all_afterwards(
    office: Office, sink: RawPrinter, me: Person, label: str
) -> None:
    title = f"told-{label.partition(':')[0]}"
    office.cloud.process.stop()
    office.cloud.start(kill_at=label)
    submit(office, title, unique(title))
    wait_dead(office.cloud.process)
    office.cloud.start()
    office.node.wait_connected(60)
    job = me.wait_job(title, "held", 40)
    me.release(job["id"], "Sink")
    me.wait_job(title, "done", 40)
    events = [step["event"] for step in me.trace(job["id"]) if step["host"] == "node1"]
    assert events.count("stored") == 1 and events.count("printed") == 1
    assert times_printed(sink, unique(title)) == 1


def test_a_killed_backend_does_not_take_the_job_along(office: Office, sink: RawPrinter, me: Person) -> None:
    office.node.process.stop()
    office.node.start()
    office.node.process.freeze()
    job = submit(office, "backend", unique("backend"))
    wait_until("the backend", lambda: backends(office))
    time.sleep(0.5)  # until it has handed the document over: before that nobody but cupsd has it (docs/cups.md)
    for pid in backends(office):
        os.kill(pid, signal.SIGKILL)
    wait_until("its end", lambda: not backends(office))
    assert office.cups.wait_job(job, 60) == "completed", "then cupsd would run it again, and all would be well"
    office.node.process.thaw()
    me.wait_job("backend", "held", 40)
    assert [j["title"] for j in me.jobs()].count("backend") == 1
    release_until_done(me, me.wait_job("backend", "held")["id"], "backend")
    assert times_printed(sink, unique("backend")) == 1


def test_a_job_cancelled_while_it_is_handed_over_is_not_held(office: Office, me: Person) -> None:
    office.node.process.freeze()
    job = submit(office, "cancelled", unique("cancelled"))
    wait_until("the backend", lambda: backends(office))
    time.sleep(0.5)
    office.cups.run("cancel", str(job))
    wait_until("its end", lambda: not backends(office))
    office.node.process.thaw()
    submit(office, "next", unique("next"))
    me.wait_job("next", "held", 40)
    assert me.job("cancelled") is None


def test_a_killed_cupsd_delivers_its_jobs_afterwards_once_each(office: Office, me: Person) -> None:
    titles = [f"cupsd-{number}" for number in range(6)]
    office.node.process.freeze()
    for title in titles:
        submit(office, title, unique(title))
    wait_until("the backend", lambda: backends(office))
    office.cups.kill(signal.SIGKILL)
    office.node.process.thaw()
    for pid in backends(office):
        os.kill(pid, signal.SIGKILL)
    office.cups.start()
    for title in titles:
        me.wait_job(title, "held", 60)
    held = [job["title"] for job in me.jobs()]
    assert [held.count(title) for title in titles] == [1] * len(titles)


def test_everything_killed_at_random_moments_loses_and_doubles_nothing(
    office: Office, sink: RawPrinter, me: Person
) -> None:
    import random

    chance = random.Random(2026)
    titles = [f"random-{number}" for number in range(12)]
    for number, title in enumerate(titles):
        submit(office, title, unique(title))
        time.sleep(chance.uniform(0, 0.15))
        victim = (office.node, office.cloud)[number % 2]
        victim.process.kill()
        victim.start()
    office.node.wait_connected(60)
    for title in titles:
        job = me.wait_job(title, "held", 60)
        release_until_done(me, job["id"], title)
    assert [times_printed(sink, unique(title)) for title in titles] == [1] * len(titles)
    held = [job["title"] for job in me.jobs()]
    assert [held.count(title) for title in titles] == [1] * len(titles)


def test_an_index_that_is_lost_is_rebuilt_from_the_sealed_jobs(office: Office, sink: RawPrinter, me: Person) -> None:
    submit(office, "rebuilt", unique("rebuilt"))
    job = me.wait_job("rebuilt", "held", 40)
    office.node.process.stop()
    for path in office.node.state.glob("index.sqlite*"):
        path.unlink()
    office.node.start()
    office.node.wait_connected(60)
    wait_until("the job", lambda: job["id"][:8] in office.node.pullprint("jobs"))
    release_until_done(me, job["id"], "rebuilt")
    assert times_printed(sink, unique("rebuilt")) == 1


def test_a_disk_restored_from_a_backup_prints_nothing_a_second_time(
    office: Office, sink: RawPrinter, me: Person
) -> None:
    office.cups.add_queue("sink", "pullprint:/printer/Sink", PPD)
    submit(office, "pulled", unique("pulled"))
    submit(office, "doubtful", unique("doubtful"))
    pulled, doubtful = me.wait_job("pulled", "held", 40), me.wait_job("doubtful", "held", 40)
    sink.stop()
    office.cups.lp("sink", unique("pushed"), "raw", user=office.account, title="pushed")
    pushed = me.wait_job("pushed", "held", 40)
    office.node.process.stop()
    backup = office.root / "backup"
    shutil.copytree(office.node.state, backup)
    sink.start()
    office.node.start()
    me.wait_job("pushed", "done", 60)
    release_until_done(me, pulled["id"], "pulled")
    office.node.process.stop()
    office.node.start(kill_at="sending")
    office.node.wait_connected(60)
    me.release(doubtful["id"], "Sink")
    wait_dead(office.node.process)
    shutil.rmtree(office.node.state)
    shutil.copytree(backup, office.node.state)
    for _ in range(2):
        office.node.start()
        office.node.wait_connected(60)
        time.sleep(3)
        office.node.process.stop()
    office.node.start()
    office.node.wait_connected(60)
    for job, title in ((pulled, "pulled"), (pushed, "pushed")):
        assert times_printed(sink, unique(title)) == 1
        assert me.wait_job(title, "done")
        with pytest.raises(Answer):
            me.release(job["id"], "Sink")
        assert not (office.node.state / "jobs" / job["id"]).exists()
    printed = times_printed(sink, unique("doubtful"))
    press_until(me, doubtful["id"], "doubtful", "uncertain")
    assert times_printed(sink, unique("doubtful")) == printed <= 1
    me.release(doubtful["id"], "Sink", again=True)
    me.wait_job("doubtful", "done", 40)


def release_until_done(me: Person, job: str, title: str) -> None:
    """Press Print until it worked, as a person would; the cloud may still believe in an order that died."""
    press_until(me, job, title, "done")


def press_until(me: Person, job: str, title: str, end: str) -> None:
    """Press Print until the job is in the state *end*."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        state = (me.job(title) or {}).get("state")
        if state == end:
            return
        if state in ("done", "uncertain"):
            pytest.fail(f"{title} became {state}: {me.trace(job)}")
        try:
            if state == "held":
                me.release(job, "Sink")
        except Answer as answer:
            assert answer.status == 409, answer
        time.sleep(0.5)
    pytest.fail(f"{title} was not printed: {me.job(title)} {me.trace(job)}")


def backends(office: Office) -> list[int]:
    """Pids of running pullprint backends of this office's cupsd."""
    installed = str(office.cups.root / "lib" / "backend" / "pullprint").encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if installed in words[:4]:
                found.append(int(entry.name))
    return found
