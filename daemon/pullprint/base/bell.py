"""A hint that something changed; the truth is elsewhere."""

import asyncio


class Bell:
    """Wakes everyone who waits at that moment; nobody misses a ring between looking and waiting.

    Take `ticket` first, look, then `wait` with the ticket.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._count = 0

    @property
    def ticket(self) -> int:
        """How often it rang so far."""
        return self._count

    def ring(self) -> None:
        """Wake all who wait."""
        self._count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, ticket: int, seconds: float | None = None) -> bool:
        """Wait until it has rung since *ticket* was taken; False when *seconds* pass first."""
        if self._count != ticket:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True
