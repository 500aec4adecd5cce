"""What is handed over is stored whole or not at all, and whatever it is, the daemon goes on."""

import asyncio
import os
import socket

import pytest
from tests.node.host import Host, Organisation, line, running
from tests.rig.documents import pdf

from pullprint.model.states import State
from pullprint.vault.index import Index


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"v": 2}, "later"),
        ({"job_uuid": "7"}, "later"),
        ({"job_uuid": None}, "later"),
        ({"queue": "a b"}, "later"),
        ({"queue": "../../etc"}, "later"),
        ({"content_type": "pdf"}, "later"),
        ({"content_type": "application/pdf\n"}, "later"),
        ({"copies": "1"}, "later"),
        ({"copies": True}, "later"),
        ({"copies": 0}, "refused"),
        ({"copies": 10_000}, "refused"),
        ({"cups_job_id": -1}, "later"),
        ({"title": ["a"]}, "later"),
        ({"device_uri": "file:/etc/passwd"}, "later"),
        ({"device_uri": "pullprint:/printer/a/b"}, "later"),
        ({"device_uri": "pullprint:/etc"}, "later"),
        ({"options": "x=\x1b[31m"}, "refused"),
        ({"options": "a=1 " * 600}, "refused"),
        ({"options": "a=" + "b" * 70_000}, "refused"),
    ],
)
async def test_a_malformed_line_is_answered_and_nothing_is_stored(host: Host, changes: dict, word: str) -> None:
    answer = await host.submit(pdf(), **changes)
    assert answer.startswith(word + " "), answer
    assert answer.isprintable()
    assert await host.holder.read(Index.jobs) == []
    assert list(host.holder.directory.iterdir()) == []
    assert (await host.submit(pdf())).startswith("stored "), "the daemon does not go on"


@pytest.mark.parametrize(
    "data",
    [b"\n", b"\0" * 1_000 + b"\n", b"{" * 100_000 + b"\n", b"[]\n", b"nonsense\n", b'{"v":1}\n', b"x" * 300_000],
    ids=["empty", "zeros", "deep", "list", "words", "bare", "endless"],
)
async def test_garbage_is_no_job(host: Host, data: bytes) -> None:
    with open(os.devnull, "rb") as null:
        answer = await host.send(data, [null.fileno()])
    assert answer.startswith("later ") or answer == ""
    assert await host.holder.read(Index.jobs) == []


async def test_a_64_kib_title_with_control_characters_is_held_short_and_clean(host: Host) -> None:
    record = await host.hold(pdf(), title="\x1b[2J\u202e" + "long\n" * 13_000)
    assert len(record.title) <= 255 and record.title.isprintable()


async def test_bytes_that_are_no_text_become_a_title_all_the_same(host: Host) -> None:
    record = await host.hold(pdf(), title="r\udcffport")
    assert record.title == "r\ufffdport"


async def test_an_empty_document_is_refused_with_a_sentence(host: Host) -> None:
    answer = await host.submit(b"")
    assert answer.startswith("refused ") and "empty" in answer
    assert list(host.holder.directory.iterdir()) == []


async def test_a_document_over_the_limit_is_refused_and_leaves_nothing(host: Host) -> None:
    object.__setattr__(host.settings, "document_limit_mib", 1)
    answer = await host.submit(b"x" * (2 << 20))
    assert answer.startswith("refused ") and "1 MiB" in answer
    assert list(host.holder.directory.iterdir()) == []


async def test_a_broken_pdf_is_held_with_unknown_facts(host: Host) -> None:
    record = await host.hold(b"%PDF-1.7\nthis is not one")
    async with asyncio.timeout(30):
        while (await host.record(record.id)).facts is None:
            await asyncio.sleep(0.05)
    after = await host.record(record.id)
    assert after.state is State.HELD and after.facts is not None and after.facts.pages is None


async def test_what_cannot_be_counted_because_too_much_waits_says_so(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullprint.node.intake.FACTS_BACKLOG", 0)
    record = await host.hold(pdf())
    async with asyncio.timeout(30):
        while (facts := (await host.record(record.id)).facts) is None:
            await asyncio.sleep(0.01)
    assert facts.problem == "busy"
    assert (await host.events(record.id))[-1] == "facts"


async def test_a_pipe_too_long_to_keep_in_memory_says_why_it_was_not_counted(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pullprint.node.document.COPY_LIMIT", 1_000)
    read, write = os.pipe()
    os.write(write, pdf() + bytes(1_000))
    os.close(write)
    job = (await host.send(line(), [read])).split()[1]
    os.close(read)
    async with asyncio.timeout(30):
        while (facts := (await host.record(job)).facts) is None:
            await asyncio.sleep(0.01)
    assert facts.problem == "too-large"


@pytest.mark.parametrize("count", [0, 2, 3])
async def test_a_line_without_exactly_one_document_is_no_job(host: Host, count: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with open(os.devnull, "rb") as null:
        answer = await host.send(line(), [null.fileno()] * count)
    assert answer.startswith("later ")
    await asyncio.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) == before, "descriptors were kept"


async def test_a_descriptor_that_is_no_document_is_no_job(host: Host) -> None:
    directory = os.open("/", os.O_RDONLY)
    try:
        assert (await host.send(line(), [directory])).startswith("later ")
    finally:
        os.close(directory)


async def test_the_same_job_handed_over_twice_is_stored_once(host: Host) -> None:
    uuid = "00000000-0000-4000-8000-000000000001"
    answers = await asyncio.gather(*(host.submit(pdf(), job_uuid=uuid) for _ in range(5)))
    assert len({answer.split()[1] for answer in answers}) == 1
    assert len(await host.holder.read(Index.jobs)) == 1
    assert len(list(host.holder.directory.iterdir())) == 1


async def test_a_pipe_is_read_to_its_end_and_counted(host: Host) -> None:
    document = pdf(3)
    read, write = os.pipe()
    os.write(write, document)
    os.close(write)
    answer = await host.send(line(), [read])
    os.close(read)
    job = answer.split()[1]
    async with asyncio.timeout(30):
        while (await host.record(job)).facts is None:
            await asyncio.sleep(0.05)
    record = await host.record(job)
    assert record.size == len(document) and record.facts is not None and record.facts.pages == 3


async def test_a_pipe_that_was_cut_off_with_its_backend_is_not_stored(host: Host) -> None:
    read, write = os.pipe()
    os.write(write, b"%PDF-1.7\nhalf of")
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(host.socket))
    socket.send_fds(connection, [line()], [read])
    os.close(read)
    await asyncio.sleep(0.2)
    connection.close()
    await asyncio.sleep(0.1)
    os.close(write)
    await asyncio.sleep(0.8)
    assert await host.holder.read(Index.jobs) == []
    assert list(host.holder.directory.iterdir()) == []


async def test_before_joining_jobs_wait_in_cups(root, sink) -> None:  # type: ignore[no-untyped-def]
    host = Host(root, Organisation(), {})
    async with running(host):
        answer = await host.submit(pdf())
    assert answer.startswith("later ") and "pullprint join" in answer


async def test_a_full_disk_leaves_the_job_in_cups(host: Host) -> None:
    object.__setattr__(host.settings, "disk_reserve_mib", 1 << 40)
    answer = await host.submit(pdf())
    assert answer.startswith("later ") and "no room" in answer
    assert list(host.holder.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "owner"),
    [
        ({}, "alice@example.com"),
        ({"user": "ALICE"}, "alice@example.com"),
        ({"user": "mallory"}, ""),
        ({"user": "alice@example.com"}, ""),
        ({"user": "a/../alice"}, ""),
        ({"user": ""}, ""),
        ({"host": "laptop.example.net"}, ""),
    ],
)
async def test_a_job_belongs_to_whom_the_rule_says_and_else_to_nobody(host: Host, changes: dict, owner: str) -> None:
    record = await host.hold(pdf(), **changes)
    assert record.owner == owner
    assert bool(record.claim_code) == (not owner)


async def test_the_code_of_a_local_job_is_not_shown_to_everybody_in_the_queue(host: Host) -> None:
    local = await host.submit(pdf(), user="mallory")
    job = await host.record(local.split()[1])
    assert job.claim_code not in local and "pullprint jobs" in local
    remote = await host.submit(pdf(), user="mallory", host="laptop.example.net")
    job = await host.record(remote.split()[1])
    assert job.claim_code in remote
