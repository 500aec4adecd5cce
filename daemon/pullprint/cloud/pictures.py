"""Pictures of first pages, put together for the browser that asks: the picture from here, its key from a holder.

A picture is stored sealed, and its key stays on the holders. They seal it to a public key that the browser made for
this one view, so what passes through here opens nothing. Requests wait in this process only: the answer of a node must
reach the instance that asked.
"""

import secrets
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web
from sqlalchemy import select

from pullprint.base.errors import TooMany
from pullprint.cloud import inbox
from pullprint.cloud.gate import CLOUD, Access, access, answers, body, node, user
from pullprint.cloud.orders import AWAY_AFTER
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import holder as holder_table
from pullprint.cloud.tables import job as job_table
from pullprint.cloud.tables import node as node_table
from pullprint.vault.parts import SLOT_SIZE
from pullprint.wire.api import Picture, PicturesRequest
from pullprint.wire.node import PictureItem, PictureKeys

WAIT = 5.0
"""Seconds for the holders to answer."""
EXPIRES = 10.0
"""Seconds after which a holder need not be told any more."""
AT_ONCE = 4
"""Requests of one user at the same time."""


@dataclass(eq=False)
class _Asking:
    """One request, and who has yet to answer it."""

    asked: dict[str, frozenset[str]]
    """Jobs by node; a node that has answered is taken out."""
    keys: dict[str, bytes] = field(default_factory=dict)

    def take(self, node_id: str, keys: PictureKeys) -> None:
        """The node's first answer counts, for the jobs that it was asked for."""
        jobs = self.asked.pop(node_id, frozenset())
        self.keys |= {job: key for job, key in keys.keys.items() if job in jobs and len(key) == SLOT_SIZE}


class Pictures:
    """The requests that wait for keys."""

    def __init__(self) -> None:
        self.asking: dict[str, _Asking] = {}
        self.of_user: Counter[tuple[str, str]] = Counter()


_PICTURES = web.AppKey("pictures", Pictures)


def add(app: web.Application) -> None:
    """A place for this application's requests."""
    app[_PICTURES] = Pictures()


@access(Access.USER)
async def show(request: web.Request) -> web.StreamResponse:
    """The pictures of the caller's jobs that can be had now; the rest is left out."""
    caller, wanted, pictures = user(request), body(request, PicturesRequest), request.app[_PICTURES]
    owner = (caller.organisation, caller.user)
    if pictures.of_user[owner] >= AT_ONCE:
        raise TooMany(seconds=int(WAIT))
    pictures.of_user[owner] += 1
    try:
        return answers(await _gather(request, owner, wanted))
    finally:
        pictures.of_user[owner] -= 1
        if not pictures.of_user[owner]:
            del pictures.of_user[owner]


@access(Access.NODE)
async def take_keys(request: web.Request) -> web.StreamResponse:
    """A holder's keys; those that nobody waits for, or that this node was not asked for, are dropped."""
    keys = body(request, PictureKeys)
    asking = request.app[_PICTURES].asking.get(keys.request)
    if asking is not None:
        asking.take(node(request).id, keys)
        request.app[CLOUD].bus.wake({_topic(keys.request)})
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


async def _gather(request: web.Request, owner: tuple[str, str], wanted: PicturesRequest) -> list[Picture]:
    cloud, waiting = request.app[CLOUD], request.app[_PICTURES].asking
    found = await cloud.store.read(_find, *owner, wanted.jobs)
    if not found:
        return []
    asked: dict[str, set[str]] = {}
    for job, (node_id, _) in found.items():
        asked.setdefault(node_id, set()).add(job)
    number = secrets.token_hex(16)
    asking = waiting[number] = _Asking({node_id: frozenset(jobs) for node_id, jobs in asked.items()})
    items = {
        node_id: PictureItem(seq=0, request=number, public=wanted.public, jobs=tuple(sorted(jobs)))
        for node_id, jobs in asked.items()
    }
    end = cloud.clock.monotonic() + WAIT
    try:
        with cloud.bus.listen(_topic(number)) as waiter:
            await cloud.store.note(_tell, items)
            while asking.asked and not waiter.closed and await waiter.wait(end - cloud.clock.monotonic()):
                pass
    finally:
        del waiting[number]
    return [
        Picture(job=job, picture=picture, key=asking.keys[job])
        for job, (_, picture) in found.items()
        if job in asking.keys
    ]


def _find(t: Transaction, organisation_id: str, user_name: str, jobs: tuple[str, ...]) -> dict[str, tuple[str, bytes]]:
    """The sealed pictures of those of the user's live *jobs* that a holder who is awake has the key of, and who that is
    (of several, the one that was heard last)."""
    rows = t.all(
        select(job_table.c.id, job_table.c.picture, node_table.c.id.label("node"))
        .join(
            holder_table,
            (holder_table.c.organisation == job_table.c.organisation) & (holder_table.c.job == job_table.c.id),
        )
        .join(node_table, node_table.c.id == holder_table.c.node)
        .where(job_table.c.organisation == organisation_id, job_table.c.owner == user_name, job_table.c.id.in_(jobs))
        .where(job_table.c.picture.is_not(None), job_table.c.ended.is_(None), job_table.c.cancelling.is_(None))
        .where(node_table.c.revoked.is_(None), node_table.c.seen >= t.now - AWAY_AFTER)
        .order_by(node_table.c.seen)
    )
    return {row.id: (row.node, bytes(row.picture)) for row in rows}


def _topic(number: str) -> str:
    return f"pictures:{number}"


def _tell(t: Transaction, items: dict[str, PictureItem]) -> None:
    for node_id in sorted(items):  # always in this order, so that two transactions do not wait for each other
        inbox.put(t, node_id, items[node_id], expires=t.now + EXPIRES)
