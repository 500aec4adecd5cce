"""What a benchmark found: a value, what it is compared to, and whether that is enough."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for a figure's ratio to its baseline, or for its value."""

    of: Literal["ratio", "value"]
    at: Literal["most", "least"]
    bound: float

    def met(self, value: float, ratio: float) -> bool:
        """Whether a figure keeps to it."""
        measured = ratio if self.of == "ratio" else value
        return measured <= self.bound if self.at == "most" else measured >= self.bound

    def text(self, unit: str) -> str:
        """As in a table: ``≤ 1 ×``, ``≤ 50 ms``."""
        sign = "≤" if self.at == "most" else "≥"
        return f"{sign} {self.bound:g} {'×' if self.of == 'ratio' else unit}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    benchmark: str
    """``B1`` …"""
    what: str
    unit: str
    value: float
    baseline: float
    against: str
    """What the baseline is."""
    target: Target | None = None
    """None: for information."""
    detail: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    """Whatever explains the value, in *unit* unless its name says otherwise."""

    @property
    def ratio(self) -> float:
        """Value to baseline."""
        return self.value / self.baseline

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return self.target.met(self.value, self.ratio) if self.target else None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "benchmark": self.benchmark, "what": self.what, "unit": self.unit, "value": self.value,
            "baseline": self.baseline, "against": self.against, "ratio": self.ratio,
            "target": self.target.text(self.unit) if self.target else None, "met": self.met,
            "detail": {name: list(v) if isinstance(v, Sequence) else v for name, v in self.detail.items()},
        }  # fmt: skip


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of *values* that *percent* of them do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
