"""Asking the printer what became of a delivery that a crash cut off.

Its word frees a job only when it proves that nothing was printed. That a job is «completed» does not say that all of
the document had arrived before this host stopped, so then the owner is told what the printer says, and decides.
"""

import asyncio
import logging
from pathlib import Path

from pullprint.base.backoff import Backoff
from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.job import attempt_name
from pullprint.model.states import Event, State
from pullprint.model.uri import check_uri
from pullprint.model.votes import prove_nothing_sent
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
    """Looks after the jobs that were uncertain when the daemon started."""

    def __init__(self, holder: Holder, site: Site, clock: Clock, trust: Path) -> None:
        self._holder = holder
        self._site = site
        self._clock = clock
        self._trust = trust

    async def run(self) -> None:
        """Ask for each of them, and end."""
        while not self._site.joined:
            await self._site.changed.wait(self._site.changed.ticket)
        async with asyncio.TaskGroup() as group:
            for record in await self._holder.read(Index.in_states, State.UNCERTAIN):
                if record.printer and record.vote.attempts:
                    group.create_task(self._ask(record), name="inquiry")

    async def _ask(self, record: Record) -> None:
        backoff = Backoff(first=1.0, cap=120.0)
        for _ in range(TRIES):
            try:
                await self._weigh(record, await self._testimony(record))
            except NoAnswer:
                await self._clock.sleep(backoff.next())
                continue
            except PullprintError as error:
                log.info("%s: the printer cannot be asked: %s", record.id, error.code)
                return
            return

    async def _testimony(self, record: Record) -> Testimony:
        uri = await resolve(check_uri(self._site.printer(record.printer).uri), self._site.networks)
        if uri.scheme not in ("ipp", "ipps"):
            return Testimony(job_id=None, state=None)
        async with IppClient(uri, self._trust) as client:
            return await testimony_of(client, attempt_name(record.id, record.vote.attempts[-1].ballot), None)

    async def _weigh(self, record: Record, testimony: Testimony) -> None:
        current = await self._holder.read(Index.get, record.id)
        if current.state is not State.UNCERTAIN or current.vote != record.vote:
            return
        attempt = record.vote.attempts[-1]
        if testimony.nothing_printed:
            step = Step("testimony", SAYS_NOTHING, testimony.words())
            vote = prove_nothing_sent(current.vote, attempt.ballot)
            await self._holder.change(
                Index.move,
                record.id,
                Event.NOTHING_SENT,
                step,
                order=attempt.order,
                ballot=attempt.ballot,
                vote=vote,
            )
        elif testimony.ended:
            await self._holder.change(Index.note, record.id, Step("testimony", SAYS_DONE, testimony.words()))
