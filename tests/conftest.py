"""What every test is held to: it leaves no task, no thread and no open descriptor behind."""

import asyncio
import gc
import os
import threading
import time
from asyncio import runners
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import pullprint

SETTLE_SECONDS = 3.0
"""How long threads and descriptors of a test may take to go away after its last fixture has ended."""

_FUZZ_EXAMPLES = os.environ.get("PULLPRINT_FUZZ_EXAMPLES", "")
# Without the variable the same examples run every time: a red `make test` means that the code changed.
settings.register_profile(
    "pullprint",
    deadline=None,
    derandomize=not _FUZZ_EXAMPLES,
    database=None,
    max_examples=int(_FUZZ_EXAMPLES or 150),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pullprint")

_PRODUCT = Path(pullprint.__file__).parent
_THREADS = pytest.StashKey[set[threading.Thread]]()
_DESCRIPTORS = pytest.StashKey[dict[int, str]]()
_TASKS: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Takes the inventory after the fixtures of wider scope have started; the teardown hook compares."""
    request.node.stash[_THREADS] = set(threading.enumerate())
    request.node.stash[_DESCRIPTORS] = _descriptors()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Compares after every fixture of the test, its event loop included, has ended."""
    _TASKS.clear()
    result = yield
    if item.stash.get(_THREADS, None) is None:
        return result
    tasks, threads, descriptors = list(_TASKS), _left_threads(item), _left_descriptors(item)
    until = time.monotonic() + SETTLE_SECONDS
    while (threads or descriptors) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.02)
        threads, descriptors = _left_threads(item), _left_descriptors(item)
    if tasks or threads or descriptors:
        pytest.fail(f"left behind: tasks {tasks}, threads {threads}, descriptors {descriptors}", pytrace=False)
    return result


def _left_threads(item: pytest.Item) -> list[str]:
    return sorted(thread.name for thread in set(threading.enumerate()) - item.stash[_THREADS])


def _left_descriptors(item: pytest.Item) -> list[str]:
    before = item.stash[_DESCRIPTORS]
    # 0, 1 and 2 are pytest's own to swap while it captures output; libqpdf keeps its source of randomness.
    after = {fd: target for fd, target in _descriptors().items() if fd > 2 and target != "/dev/urandom"}
    return sorted(target for fd, target in after.items() if before.get(fd) != target)


def _descriptors() -> dict[int, str]:
    """Open descriptors and what they stand for; those that close while we look are left out."""
    result = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            result[int(name)] = str(Path("/proc/self/fd", name).readlink())
        except FileNotFoundError:
            continue
    return result


_cancel_all_tasks = runners._cancel_all_tasks


def _note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
    # What still runs when a loop closes was never waited for; asyncio cancels it without a word. Only tasks of the
    # product count: a stand-in's or a library's server may still be busy with a connection that has just ended.
    for task in asyncio.all_tasks(loop):
        code = getattr(task.get_coro(), "cr_code", None)
        if not task.done() and code is not None and Path(code.co_filename).is_relative_to(_PRODUCT):
            _TASKS.append(f"{task.get_name()} ({code.co_qualname})")
    _cancel_all_tasks(loop)


runners._cancel_all_tasks = _note_and_cancel
