"""What this process has done since it started; for metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts up; written on the event loop only."""

    issued: int = 0
    """Orders, those that replaced another one included."""
    taken_over: int = 0
    """Orders that replaced another one."""
