"""Telling other nodes of jobs until they have heard: each node has its own queue, so one that is away is in no other's
way. What is to be told, and what is done with a refusal, is its owner's matter; nothing is kept on the disk."""

import asyncio
from collections.abc import Awaitable, Callable

from pullprint.base.backoff import Backoff
from pullprint.base.bell import Bell
from pullprint.base.clock import Clock

LONGEST_RETRY = 60.0
RESTART_PACE = 0.05
"""Seconds between two that a node is told of only because this one was restarted."""

Tell = Callable[[str, str], Awaitable[float | None]]
"""Tells a node of a job. None: it has heard, or need not; 0: it does not answer; else seconds until it is told again.
Raises nothing."""


class Telling:
    """Nodes, and the jobs of which each is to be told."""

    def __init__(self, tell: Tell, clock: Clock, retry: float) -> None:
        """*retry*: seconds until a node that does not answer is told again, at first."""
        self._tell = tell
        self._clock = clock
        self._retry = retry
        self._due: dict[str, dict[str, float]] = {}
        self._again: set[tuple[str, str]] = set()
        self._at_work: set[str] = set()
        self._wake = Bell()

    @property
    def waiting(self) -> bool:
        """Whether anybody is to be told of anything."""
        return bool(self._due)

    def add(self, node: str, job: str, *, again: bool = False) -> None:
        """*node* is to be told of *job*; *again*: it may have been told before, which nobody knows any more."""
        self._due.setdefault(node, {}).setdefault(job, 0.0)
        if again:
            self._again.add((node, job))
        else:
            self._again.discard((node, job))
        self._wake.ring()

    def waits(self, node: str, job: str) -> bool:
        """Whether *node* has yet to hear of *job*."""
        return job in self._due.get(node, {})

    def is_again(self, node: str, job: str) -> bool:
        """Whether *node* may have been told of *job* before."""
        return (node, job) in self._again

    def may_have_heard(self, node: str, job: str) -> None:
        """*node* was told of *job*, and its answer did not come."""
        self._again.add((node, job))

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    ticket = self._wake.ticket
                    for node in self._due.keys() - self._at_work:
                        self._at_work.add(node)
                        group.create_task(self._tell_all(node), name="tell")
                    await self._wake.wait(ticket)
        finally:
            self._at_work.clear()

    async def _tell_all(self, node: str) -> None:
        backoff = Backoff(self._retry, LONGEST_RETRY)
        try:
            while jobs := self._due.get(node):
                job, due = min(jobs.items(), key=lambda each: each[1])
                if (rest := due - self._clock.monotonic()) > 0:
                    ticket = self._wake.ticket
                    await self._wake.wait(ticket, rest)
                    continue
                was_again = self.is_again(node, job)
                pause = await self._tell(node, job)
                if pause is None:
                    jobs.pop(job, None)
                    self._again.discard((node, job))
                    backoff.reset()
                    if was_again:
                        await self._clock.sleep(RESTART_PACE)
                elif pause:
                    jobs[job] = self._clock.monotonic() + pause
                else:
                    await self._clock.sleep(backoff.next())
        finally:
            self._at_work.discard(node)
            if not self._due.get(node):
                self._due.pop(node, None)
