"""What this node tells Prometheus: ``GET /metrics`` on the control socket, text format 0.0.4.

Counts are plain numbers that whoever does a thing adds to; the library is loaded when somebody asks for the first time.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pullprint import __version__
from pullprint.node.overview import Census

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of how long releases took."""

Ballot = Literal["promised", "committed", "refused"]
Direction = Literal["sent", "received"]


@dataclass(slots=True)
class Counts:
    """What has happened since the daemon started."""

    votes: Counter[str] = field(default_factory=Counter)
    transfers: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    releases: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    """By bucket; the last has what took longer than all."""
    release_seconds: float = 0.0
    scrubbed: int = 0
    """Bytes of copies that were read to see whether they are sound."""
    damaged: int = 0
    repaired: int = 0
    """Copies."""

    def vote(self, kind: Ballot) -> None:
        """This node has promised a ballot, committed to one, or refused either."""
        self.votes[kind] += 1

    def transfer(self, direction: Direction, size: int, *, done: bool) -> None:
        """*size* bytes of a sealed job went to a peer or came from one; *done*: that was all of it."""
        self.transfers[direction, "done" if done else "broken"] += 1
        self.bytes[direction] += size

    def release(self, seconds: float) -> None:
        """A release took so long from its order to the first byte."""
        self.releases[next((n for n, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))] += 1
        self.release_seconds += seconds


@dataclass(frozen=True, slots=True)
class Moment:
    """How things stand now."""

    census: Census
    peers: int
    awake: int
    news: int
    """Messages that wait for peers."""
    unreported: int
    """Events that the cloud has not acknowledged."""


def exposition(moment: Moment, counts: Counts) -> bytes:
    """Everything in the text format. Blocking: loads the library, and reads ``/proc``."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(moment, counts))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _Collector:
    def __init__(self, moment: Moment, counts: Counts) -> None:
        self._moment = moment
        self._counts = counts

    def collect(self) -> "Iterator[Metric]":
        """As prometheus_client's registry wants it."""
        yield from self._gauges()
        yield from self._counters()

    def _gauges(self) -> "Iterator[Metric]":
        from prometheus_client.core import GaugeMetricFamily

        now = self._moment
        build = GaugeMetricFamily("pullprint_build_info", "Always 1; what runs here.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        jobs = GaugeMetricFamily("pullprint_jobs", "Jobs that this node knows, by state.", labels=["state"])
        for state, count in sorted(now.census.jobs.items()):
            jobs.add_metric([state], count)
        yield jobs
        for name, text, value in (
            ("jobs_short", "Held jobs that lack copies.", now.census.short),
            ("held_bytes", "Bytes of the documents that are held.", now.census.bytes),
            ("peers_known", "Other nodes of the site.", now.peers),
            ("peers_awake", "Other nodes of the site that answered lately.", now.awake),
            ("news_waiting", "Messages that wait for other nodes.", now.news),
            ("events_unreported", "Events that the cloud has not acknowledged.", now.unreported),
        ):
            yield GaugeMetricFamily(f"pullprint_{name}", text, value=value)

    def _counters(self) -> "Iterator[Metric]":
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        counts = self._counts
        votes = CounterMetricFamily("pullprint_votes", "What this node answered as a voter.", labels=["answer"])
        for kind in ("promised", "committed", "refused"):
            votes.add_metric([kind], counts.votes[kind])
        yield votes
        transfers = CounterMetricFamily("pullprint_transfers", "Sealed jobs that were sent to peers, or received.",
                                        labels=["direction", "end"])  # fmt: skip
        octets = CounterMetricFamily("pullprint_transfer_bytes", "Their bytes.", labels=["direction"])
        for direction in ("sent", "received"):
            octets.add_metric([direction], counts.bytes[direction])
            for end in ("done", "broken"):
                transfers.add_metric([direction, end], counts.transfers[direction, end])
        yield transfers
        yield octets
        for name, text, value in (
            ("scrubbed_bytes", "Bytes of copies that were read to see whether they are sound.", counts.scrubbed),
            ("copies_damaged", "Copies that were found damaged.", counts.damaged),
            ("copies_repaired", "Copies that were replaced with a peer's.", counts.repaired),
        ):
            yield CounterMetricFamily(f"pullprint_{name}", text, value=value)
        releases = HistogramMetricFamily("pullprint_release_seconds", "From a release's order to its first byte.")
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts.releases, strict=True):
            total += count
            buckets.append((bound, total))
        releases.add_metric([], buckets, counts.release_seconds)
        yield releases
