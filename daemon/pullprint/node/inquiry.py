"""Asking the printer what became of a delivery that a crash cut off, here or at another holder.

Its word frees a job only when it proves that nothing was printed. That a job is «completed» does not say that all of
the document had arrived before this host stopped, so then the owner is told what the printer says, and decides.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pullprint.base.backoff import Backoff
from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.job import attempt_name
from pullprint.model.states import Event, State
from pullprint.model.uri import check_uri
from pullprint.model.votes import Attempt, prove_nothing_sent
from pullprint.node.holder import Holder
from pullprint.node.site import Site
from pullprint.printers.ipp import IppClient, NoAnswer
from pullprint.printers.tell import Testimony, testimony_of
from pullprint.printers.uri import resolve
from pullprint.vault.index import Index
from pullprint.vault.record import Record, Step

log = logging.getLogger(__name__)

TRIES = 8
"""Over some minutes; later most printers have forgotten the job."""

SAYS_NOTHING = "The printer says that it printed nothing of it. The document is still held; release it again."
SAYS_DONE = (
    "The printer says that it finished the job, but this host stopped while sending it: look whether all pages came "
    "out, then choose “print again” or “it came out”."
)


class Inquiry:
    """Looks after the jobs that were uncertain when the daemon started, or turn out to be."""

    def __init__(self, holder: Holder, site: Site, clock: Clock, trust: Path) -> None:
        self._holder = holder
        self._site = site
        self._clock = clock
        self._trust = trust
        self._doubts: asyncio.Queue[tuple[Record, Attempt]] = asyncio.Queue()
        self._at_work: set[tuple[str, Attempt]] = set()

    def doubt(self, record: Record, attempts: Sequence[Attempt]) -> None:
        """*record* may have been printed by any of *attempts*; the printer of its latest order is asked."""
        for attempt in attempts:
            if record.printer and (record.id, attempt) not in self._at_work:
                self._at_work.add((record.id, attempt))
                self._doubts.put_nowait((record, attempt))

    async def run(self) -> None:
        """Ask for each of them, until cancelled."""
        while not self._site.joined:
            await self._site.changed.wait(self._site.changed.ticket)
        for record in await self._holder.read(Index.in_states, State.UNCERTAIN):
            self.doubt(record, record.vote.attempts[-1:])
        async with asyncio.TaskGroup() as group:
            while True:
                record, attempt = await self._doubts.get()
                group.create_task(self._ask(record, attempt), name="inquiry")

    async def _ask(self, record: Record, attempt: Attempt) -> None:
        backoff = Backoff(first=1.0, cap=120.0)
        try:
            for _ in range(TRIES):
                try:
                    await self._weigh(record, attempt, await self._testimony(record, attempt))
                except NoAnswer:
                    await self._clock.sleep(backoff.next())
                    continue
                return
        except PullprintError as error:
            log.info("%s: the printer cannot be asked: %s", record.id, error.code)
        finally:
            self._at_work.discard((record.id, attempt))

    async def _testimony(self, record: Record, attempt: Attempt) -> Testimony:
        uri = await resolve(check_uri(self._site.printer(record.printer).uri), self._site.networks)
        if uri.scheme not in ("ipp", "ipps"):
            return Testimony(job_id=None, state=None)
        async with IppClient(uri, self._trust) as client:
            return await testimony_of(client, attempt_name(record.id, attempt.ballot), None)

    async def _weigh(self, record: Record, attempt: Attempt, testimony: Testimony) -> None:
        current = await self._holder.read(Index.get, record.id)
        if current.state is not State.UNCERTAIN or current.vote != record.vote:
            return
        if testimony.nothing_printed:
            step = Step("testimony", SAYS_NOTHING, testimony.words())
            proof = partial(prove_nothing_sent, ballot=attempt.ballot, order=attempt.order, releaser=attempt.releaser)
            await self._holder.change(
                Index.move, record.id, Event.NOTHING_SENT, step, order=attempt.order, ballot=attempt.ballot, vote=proof
            )
        elif testimony.ended:
            await self._holder.change(Index.note, record.id, Step("testimony", SAYS_DONE, testimony.words()))
