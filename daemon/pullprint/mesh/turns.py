"""Only so many transfers at a time, and of these only some with one peer: a slow one cannot keep all others waiting."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from pullprint.base.errors import PullprintError


class TransfersBusy(PullprintError):
    """The host takes or gives as many copies as it can at the moment. Nothing was changed; it is being tried again, or
    another host is asked."""

    code = "busy"
    http_status = 503


class Turns:
    """A queue for transfers."""

    def __init__(self, at_once: int, per_peer: int, patience: float | None = None) -> None:
        """*patience*: seconds that one waits for its turn; None: as long as it takes."""
        self._all = asyncio.Semaphore(at_once)
        self._per_peer = per_peer
        self._patience = patience
        self._own: dict[str, asyncio.Semaphore] = {}
        self._present: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def turn(self, node: str) -> AsyncIterator[None]:
        """A transfer with *node*. Raises TransfersBusy."""
        own = self._own.setdefault(node, asyncio.Semaphore(self._per_peer))
        self._present[node] += 1
        try:
            async with contextlib.AsyncExitStack() as held:
                try:
                    async with asyncio.timeout(self._patience):
                        await held.enter_async_context(own)
                        await held.enter_async_context(self._all)
                except TimeoutError as error:
                    raise TransfersBusy from error
                yield
        finally:
            self._present[node] -= 1
            if not self._present[node]:
                del self._present[node], self._own[node]
