"""Direct queues: jobs that are released at once to their printer, and again until it takes them.

A direct job is an ordinary held job whose release is asked for by this node. As long as it is proven that nothing was
sent it is tried again, with growing pauses; once that is in doubt its owner is asked like anybody else.
"""

import asyncio
import logging

from pullprint.base.backoff import Backoff
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.model.states import State
from pullprint.node.channel import Channel
from pullprint.node.holder import Holder
from pullprint.node.site import Site
from pullprint.vault.index import Index
from pullprint.vault.record import Record, Step
from pullprint.wire.node import Ask

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0


class DirectQueues:
    """Sees to it that direct jobs are released."""

    def __init__(self, holder: Holder, site: Site, channel: Channel, clock: Clock) -> None:
        self._holder = holder
        self._site = site
        self._channel = channel
        self._clock = clock
        self._at_work: set[str] = set()

    async def run(self) -> None:
        """Release direct jobs as they come, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                ticket = self._holder.changes.ticket
                for record in await self._waiting():
                    if record.id not in self._at_work:
                        self._at_work.add(record.id)
                        group.create_task(self._release(record), name="direct")
                await self._holder.changes.wait(ticket)

    async def _waiting(self) -> list[Record]:
        try:
            return await self._holder.read(Index.direct_held)
        except PullprintError as error:
            log.error("direct queues: %s", error)
            await self._clock.sleep(LONGEST_PAUSE)
            return []

    async def _release(self, record: Record) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        try:
            while record.state is State.HELD:
                await self._try(record)
                record = await self._holder.read(Index.get, record.id)
                if record.state is State.HELD:
                    await self._clock.sleep(backoff.next())
                    record = await self._holder.read(Index.get, record.id)
        except NotFound:
            pass  # ended and forgotten while it waited
        except Exception:
            log.exception("direct printing failed")
        finally:
            self._at_work.discard(record.id)

    async def _try(self, record: Record) -> None:
        try:
            printer = self._site.printer(record.direct_printer)
            by = record.owner or record.submitter or "direct queue"
            item, prepared = await self._channel.order(record, Ask(job=record.id, printer=printer.id, by=by))
        except PullprintError as error:
            # Said once: a printer that is missing for a week would fill the trace otherwise.
            if record.sentence != error.sentence:
                await self._holder.change(Index.note, record.id, Step("waiting", error.sentence, {"code": error.code}))
            return
        await self._channel.carry_out(item, prepared)
