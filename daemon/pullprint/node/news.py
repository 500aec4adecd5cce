"""What other holders are to be told of this node's attempts, until they have heard it.

The messages stand in the index, written with what they tell, so a crash loses none. Each peer has its own, in order.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from pydantic import ValidationError

from pullprint.base.backoff import Backoff
from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.node.holder import Holder
from pullprint.vault.index import Index
from pullprint.wire.mesh import News

log = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Seconds between two tries; also between two looks at what waits, whether a bell rang or not."""
GONE = frozenset({"not-found", "not-allowed", "other-generation", "not-a-peer", "order-refused", "statement-refused"})
"""Refusals that no repetition changes: the peer has no such job any more, or is none."""


class Mesh(Protocol):
    """What of `mesh.client` is needed here."""

    async def tell(self, node: str, path: str, message: News) -> None: ...


class Messenger:
    """Brings the news."""

    def __init__(self, holder: Holder, client: Mesh, known: Callable[[str], bool], clock: Clock) -> None:
        """*known* says whether a node still belongs to the site."""
        self._holder = holder
        self._client = client
        self._known = known
        self._clock = clock
        self._at_work: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                ticket = self._holder.news.ticket
                for peer in await self._holder.read(Index.news_waiting):
                    if peer not in self._at_work:
                        self._at_work.add(peer)
                        group.create_task(self._bring(peer), name="news")
                await self._holder.news.wait(ticket, LONGEST_PAUSE)

    async def _bring(self, peer: str) -> None:
        backoff = Backoff(first=0.5, cap=LONGEST_PAUSE)
        try:
            while waiting := await self._holder.read(Index.news, peer):
                number, message = waiting
                if await self._brought(peer, message):
                    await self._holder.read(Index.news_told, number)
                    backoff.reset()
                else:
                    await self._clock.sleep(backoff.next())
        except PullprintError as error:
            log.error("news for %s: %s", peer, error)
        finally:
            self._at_work.discard(peer)

    async def _brought(self, peer: str, message: str) -> bool:
        """Whether *peer* has it now, or never will."""
        if not self._known(peer):
            return True
        try:
            await self._client.tell(peer, "/mesh/v1/news", News.model_validate_json(message))
        except ValidationError:
            log.error("news that cannot be read is dropped")
        except PullprintError as error:
            if error.code not in GONE:
                return False
            log.info("%s wants no news: %s", peer, error)
        return True
