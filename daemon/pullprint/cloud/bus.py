"""Who waits for what: a wake-up is a hint, the database is the truth.

A waiter says first what it listens to, then looks into the database, then waits: nothing that is committed in
between is missed. `LocalBus` serves one process. Commands that change the database beside a running server count
up ``organisation.changes``, which the server looks at every second (`watch_changes`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Protocol

from sqlalchemy import select, update

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.cloud.store import Store, Transaction
from pullprint.cloud.tables import organisation

LOOK_EVERY = 1.0
"""Seconds between two looks at what commands have changed."""

_log = logging.getLogger(__name__)


class Waiter:
    """One that listens; from `Bus.listen`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.heard: set[str] = set()
        """Topics that woke it; whoever waits for several takes them out."""
        self.closed = False
        """The server is stopping: answer at once."""

    def wake(self, topic: str = "") -> None:
        """Something may have happened."""
        if topic:
            self.heard.add(topic)
        self._event.set()

    async def wait(self, seconds: float) -> bool:
        """Whether somebody woke it within *seconds*; the wake-up is used up by that."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


class Bus(Protocol):
    """How those who changed something reach those who wait for it."""

    def wake(self, topics: set[str]) -> None:
        """Wake all that listen to one of *topics*."""
        ...

    def listen(self, *topics: str) -> contextlib.AbstractContextManager[Waiter]:
        """A waiter for *topics*, as long as the block lasts."""
        ...

    def close(self) -> None:
        """Wake everybody, for good."""
        ...


class LocalBus:
    """All waiters are in this process."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[Waiter]] = {}
        self._closed = False

    def wake(self, topics: set[str]) -> None:
        for topic in topics:
            for waiter in self._waiters.get(topic, ()):
                waiter.wake(topic)

    @contextlib.contextmanager
    def listen(self, *topics: str) -> Iterator[Waiter]:
        waiter = Waiter()
        waiter.closed = self._closed
        for topic in topics:
            self._waiters.setdefault(topic, set()).add(waiter)
        try:
            yield waiter
        finally:
            for topic in topics:
                waiters = self._waiters[topic]
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[topic]

    def close(self) -> None:
        self._closed = True
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.closed = True
                waiter.wake()


def node_topic(node: str) -> str:
    """A node's inbox."""
    return f"node:{node}"


def organisation_topic(organisation_id: str) -> str:
    """Anything that a command changed in an organisation."""
    return f"organisation:{organisation_id}"


def jobs_topic(organisation_id: str, user: str) -> str:
    """A user's list of jobs."""
    return f"jobs:{organisation_id}/{user}"


def orders_topic() -> str:
    """An order that another holder should be given."""
    return "orders"


def printers_topic(organisation_id: str) -> str:
    """How an organisation's printers are and what they can do."""
    return f"printers:{organisation_id}"


def count_change(t: Transaction, organisation_id: str) -> None:
    """A command changed something that a running server should look at soon."""
    t.run(update(organisation).where(organisation.c.id == organisation_id).values(changes=organisation.c.changes + 1))


def changes(t: Transaction) -> dict[str, int]:
    """How often each organisation was changed by commands."""
    return {row.id: row.changes for row in t.all(select(organisation.c.id, organisation.c.changes))}


async def watch_changes(store: Store, bus: Bus, clock: Clock) -> None:
    """Wake those who wait in an organisation that a command has changed; runs until it is cancelled."""
    known = await store.read(changes)
    while True:
        await clock.sleep(LOOK_EVERY)
        try:
            latest = await store.read(changes)
        except PullprintError as error:
            _log.warning("looking for changes: %s", error.sentence)
            continue
        except Exception:  # noqa: BLE001  (the root of a task: it goes on)
            _log.exception("looking for changes failed")
            continue
        bus.wake({organisation_topic(name) for name, count in latest.items() if known.get(name) != count})
        known = latest
