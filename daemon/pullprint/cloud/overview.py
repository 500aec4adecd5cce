"""What a user is shown of the hosts that keep documents: their names, and which of them are awake."""

from itertools import groupby

from aiohttp import web
from sqlalchemy import bindparam, select

from pullprint.cloud import nodes
from pullprint.cloud.gate import CLOUD, Access, access, answers, user
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import node
from pullprint.wire.views import MeshNodeView, MeshView

NODES_LIMIT = 1_000

_NODES = (
    select(node.c.id, node.c.site, node.c.name, node.c.role, node.c.seen, node.c.revoked)
    .where(node.c.organisation == bindparam("of"), node.c.revoked.is_(None))
    .order_by(node.c.site, node.c.name, node.c.id)
    .limit(NODES_LIMIT)
)


def views(t: Transaction, organisation_id: str) -> list[MeshView]:
    """An organisation's sites with their nodes, of which nothing is told that a colleague does not need."""
    rows = t.all(_NODES, {"of": organisation_id})
    return [
        MeshView(
            site=site,
            revision=0,
            nodes=tuple(
                MeshNodeView(node=row.id, name=row.name, role=row.role, awake=nodes.is_awake(t, row)) for row in there
            ),
        )
        for site, there in groupby(rows, key=lambda row: row.site)
    ]


@access(Access.USER)
async def show(request: web.Request) -> web.StreamResponse:
    """The hosts of the caller's organisation, site by site."""
    return answers(await request.app[CLOUD].store.read(views, user(request).organisation))
