"""Which nodes have a poll parked at this very process.

A hint that is fresher than when a node was last seen, and no more: a poll whose other end has lost its power looks as
alive as any, and one that is parked at another instance is not known here.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from weakref import WeakSet


class Presence:
    """Parked polls by node."""

    def __init__(self) -> None:
        self._parked: dict[str, WeakSet[asyncio.Transport]] = {}

    @contextlib.contextmanager
    def park(self, node_id: str, transport: asyncio.Transport | None) -> Iterator[None]:
        """The node waits over *transport*, as long as the block lasts."""
        if transport is None:
            yield
            return
        parked = self._parked.setdefault(node_id, WeakSet())
        parked.add(transport)
        try:
            yield
        finally:
            parked.discard(transport)
            if not parked and self._parked.get(node_id) is parked:
                del self._parked[node_id]

    def is_here(self, node_id: str) -> bool:
        """Whether a poll of the node is parked over a connection that is still open; from any thread."""
        return any(not transport.is_closing() for transport in list(self._parked.get(node_id, ())))
