"""What systemd is told: beats only from a loop that turns, and as long as what matters answers."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig.notify import Notified, notify_socket

from pullprint.base import systemd

EVERY = 0.05


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notified]:
    with notify_socket() as notified:
        monkeypatch.setenv("NOTIFY_SOCKET", str(notified.path))
        monkeypatch.setenv("WATCHDOG_USEC", str(int(2 * EVERY * 1_000_000)))
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        monkeypatch.setattr(systemd, "STATUS_EVERY", EVERY)
        yield notified


async def _answer() -> None:
    """Nothing is the matter."""


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def test_the_watchdog_is_this_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for usec, pid, seconds in (
        ("30000000", "", 30.0), ("30000000", str(os.getpid()), 30.0), ("30000000", "1", 0.0), ("", "", 0.0),
        ("soon", "", 0.0), ("-1", "", 0.0),
    ):  # fmt: skip
        monkeypatch.setenv("WATCHDOG_USEC", usec)
        monkeypatch.setenv("WATCHDOG_PID", pid)
        assert systemd.watchdog_seconds() == seconds


def test_the_state_directory_is_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert systemd.state_directory() is None
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/pullprint:/var/lib/other")
    assert systemd.state_directory() == Path("/var/lib/pullprint")


async def test_beats_come_at_half_of_the_time(told: Notified) -> None:
    task = asyncio.create_task(systemd.beat(_answer, lambda: 1.0))
    await asyncio.to_thread(told.wait_for, "WATCHDOG=1", 8)
    await ended(task)
    times = told.times("WATCHDOG=1")
    assert 7 * EVERY * 0.9 <= times[7] - times[0]


async def test_a_loop_that_stands_still_is_not_heard(told: Notified) -> None:
    task = asyncio.create_task(systemd.beat(_answer, lambda: 1.0))
    await asyncio.to_thread(told.wait_for, "WATCHDOG=1", 2)
    still = time.monotonic()
    time.sleep(0.5)
    moving = time.monotonic()
    await asyncio.to_thread(told.wait_for, "WATCHDOG=1", len(told.lines("WATCHDOG=1")) + 2)
    await ended(task)
    assert not [at for at in told.times("WATCHDOG=1") if still + 0.05 < at < moving]


async def test_silence_of_what_matters_ends_the_beats_after_patience_and_its_answer_brings_them_back(
    told: Notified,
) -> None:
    hanging, patience = asyncio.Event(), 0.3
    hanging.set()
    task = asyncio.create_task(systemd.beat(hanging.wait, lambda: patience))
    await asyncio.to_thread(told.wait_for, "WATCHDOG=1", 3)
    hanging.clear()
    silent = time.monotonic()
    await asyncio.sleep(1.0)
    last = told.times("WATCHDOG=1")[-1]
    assert silent + patience * 0.5 < last < silent + patience + 6 * EVERY
    patience = 60.0  # a document is on its way
    await asyncio.to_thread(told.wait_for, "WATCHDOG=1", len(told.lines("WATCHDOG=1")) + 2)
    patience = 0.3
    hanging.set()
    await asyncio.sleep(1.0)
    assert told.times("WATCHDOG=1")[-1] > time.monotonic() - 0.5
    await ended(task)


async def test_an_error_is_an_answer(told: Notified) -> None:
    asked = 0

    async def fail() -> None:
        nonlocal asked
        asked += 1
        raise OSError(28, "No space left on device")

    task = asyncio.create_task(systemd.beat(fail, lambda: 0.1))
    await asyncio.to_thread(told.wait_for, "WATCHDOG=1", 12)
    assert asked > 4
    await ended(task)


async def test_without_a_watchdog_only_the_status_is_told(told: Notified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC")
    monkeypatch.setattr(systemd, "STATUS_EVERY", 0.02)

    async def say() -> None:
        systemd.tell_status("2 jobs\nheld\x1b")

    task = asyncio.create_task(systemd.beat(say, lambda: 1.0))
    assert await asyncio.to_thread(told.wait_for, "STATUS=", 3) == "STATUS=2 jobs held\ufffd"
    await ended(task)
    assert not told.lines("WATCHDOG")
    monkeypatch.delenv("NOTIFY_SOCKET")
    await systemd.beat(say, lambda: 1.0)


async def test_a_long_start_asks_for_more_time_as_long_as_it_lasts_but_not_for_ever(
    told: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "START_STEP", 0.02)
    monkeypatch.setattr(systemd, "START_LIMIT", 0.1)
    async with systemd.starting("rebuilding the index"):
        assert await asyncio.to_thread(told.wait_for, "STATUS=") == "STATUS=rebuilding the index"
        assert await asyncio.to_thread(told.wait_for, "EXTEND_TIMEOUT_USEC=", 2) == "EXTEND_TIMEOUT_USEC=60000"
        await asyncio.sleep(0.4)
    assert len(told.lines("EXTEND")) == 5
    with pytest.raises(ValueError, match="no"):
        async with systemd.starting("failing"):
            raise ValueError("no")
