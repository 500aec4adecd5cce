"""What Prometheus is told (its text format): counts, and nothing that names a person, a job or an organisation.

The only module that knows the library.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from pullprint.cloud import nodes
from pullprint.cloud.gate import CLOUD, Access, access
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import holder, job, node
from pullprint.cloud.tally import Tally
from pullprint.model.placement import HOLDERS, Role
from pullprint.model.states import State


@dataclass(frozen=True, slots=True)
class Figures:
    """How things are, by the database."""

    known: int
    """Nodes that are not shut out."""
    connected: int
    jobs: dict[str, int]
    """By state, those that have ended lately included."""
    wanted: int
    """Replicas of held jobs, where their sites have the nodes for them."""
    missing: int
    """Those of them that there are not."""


def add(app: web.Application) -> None:
    """The route."""
    app.router.add_get("/metrics", show, allow_head=False)


@access(Access.METRICS)
async def show(request: web.Request) -> web.StreamResponse:
    """All of it."""
    cloud = request.app[CLOUD]
    text = render(await cloud.store.read(figures), cloud.tally)
    # The format's own type has a parameter that aiohttp wants to set by itself.
    headers = {"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
    return web.Response(body=text, headers=headers)


def figures(t: Transaction) -> Figures:
    """Counted now; a handful of grouped queries."""
    there, connected = nodes.connected(t)
    states = {row.state: int(row[1]) for row in t.all(select(job.c.state, func.count()).group_by(job.c.state))}
    wanted, missing = _replicas(t)
    return Figures(there, connected, {state.value: states.get(state.value, 0) for state in State}, wanted, missing)


def _replicas(t: Transaction) -> tuple[int, int]:
    of_site = (node.c.organisation, node.c.site)
    able = select(*of_site, func.count()).where(node.c.revoked.is_(None), node.c.endpoints != "[]")
    able = able.where(node.c.role != Role.CLIENT.value).group_by(*of_site)
    room = {(row.organisation, row.site): min(HOLDERS, int(row[2])) for row in t.all(able)}
    copies = (
        select(job.c.organisation, job.c.site, func.count(node.c.id).label("copies"))
        .outerjoin(holder, (holder.c.organisation == job.c.organisation) & (holder.c.job == job.c.id))
        .outerjoin(node, (node.c.id == holder.c.node) & node.c.revoked.is_(None))
        .where(job.c.ended.is_(None))
        .group_by(job.c.organisation, job.c.site, job.c.id)
        .subquery()
    )
    grouped = select(copies.c.organisation, copies.c.site, copies.c.copies, func.count().label("jobs"))
    total: Counter[str] = Counter()
    for row in t.all(grouped.group_by(copies.c.organisation, copies.c.site, copies.c.copies)):
        each = max(1, room.get((row.organisation, row.site), 0))
        total["wanted"] += each * row.jobs
        total["missing"] += max(0, each - row.copies) * row.jobs
    return total["wanted"], total["missing"]


def render(figures: Figures, tally: Tally) -> bytes:
    """In Prometheus's text format."""
    # Not a Gauge or a Counter, which live as long as the process: these are made anew for each answer.
    gauge, counter = GaugeMetricFamily, CounterMetricFamily
    by_state = gauge("pullprint_jobs", "Jobs by state", labels=["state"])
    for state, count in figures.jobs.items():
        by_state.add_metric([state], count)
    families: list[Metric] = [
        gauge("pullprint_nodes_known", "Hosts that have joined and are not shut out", figures.known),
        gauge("pullprint_nodes_connected", "Those of them that are connected", figures.connected),
        by_state,
        gauge("pullprint_replicas_wanted", "Copies that there should be of living jobs", figures.wanted),
        gauge("pullprint_replicas_missing", "Those of them that there are not", figures.missing),
        counter("pullprint_orders_issued", "Release orders that this process has made", tally.issued),
        counter("pullprint_orders_taken_over", "Those of them that replaced one of another holder", tally.taken_over),
    ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Made(families))
    return generate_latest(registry)


class _Made(Collector):
    """A collector of what has been collected."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
