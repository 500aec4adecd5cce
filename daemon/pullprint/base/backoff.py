"""How long to wait before the next try: doubling, capped, and spread so that nodes do not come back all at once."""

from dataclasses import dataclass, field
from random import Random, SystemRandom


@dataclass
class Backoff:
    """Delays in seconds: full jitter between *first* and twice the last, never above *cap*."""

    first: float = 0.25
    cap: float = 30.0
    random: Random = field(default_factory=SystemRandom)
    _ceiling: float = 0.0

    def next(self) -> float:
        """The delay before the next try."""
        self._ceiling = min(self.cap, max(self.first, self._ceiling * 2))
        return self.random.uniform(self.first, self._ceiling) if self._ceiling > self.first else self.first

    def reset(self) -> None:
        """It worked: start small again."""
        self._ceiling = 0.0
