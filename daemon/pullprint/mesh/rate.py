"""How fast copies may travel: one budget for everything that this node sends to its peers."""

from pullprint.base.clock import Clock

BURST = 0.25
"""Seconds of the rate that may be taken at once after a pause."""


class Rate:
    """A token bucket that many transfers share; who asks first is served first."""

    def __init__(self, clock: Clock, bytes_per_second: int = 0) -> None:
        """0: no limit."""
        self.bytes_per_second = bytes_per_second
        """May be changed at any time."""
        self._clock = clock
        self._spent_until = 0.0

    async def take(self, count: int) -> None:
        """Wait until *count* bytes may be sent."""
        if self.bytes_per_second <= 0:
            return
        now = self._clock.monotonic()
        self._spent_until = max(self._spent_until, now - BURST) + count / self.bytes_per_second
        if self._spent_until > now:
            await self._clock.sleep(self._spent_until - now)
