"""The node channel: `wire.node` over HTTP."""

import random
from collections.abc import Sequence

from aiohttp import web

from pullprint.cloud import enrolment, inbox, orders, reports, sites, throttle
from pullprint.cloud.bus import node_topic, organisation_topic
from pullprint.cloud.gate import CLOUD, Access, Cloud, access, answer, body, node, number
from pullprint.cloud.nodes import Node
from pullprint.wire.node import (
    PARK,
    Acknowledged,
    Ask,
    Enrolment,
    Events,
    Holdings,
    InboxAnswer,
    Item,
    SignedConfig,
)

_random = random.SystemRandom()


def add(app: web.Application) -> None:
    """The channel's routes."""
    router = app.router
    router.add_post("/node/v1/enrol", enrol)
    router.add_get("/node/v1/config", config, allow_head=False)
    router.add_get("/node/v1/inbox", collect, allow_head=False)
    router.add_post("/node/v1/reconcile", reconcile)
    router.add_post("/node/v1/events", events)
    router.add_post("/node/v1/releases", release)


@access(Access.ENROLMENT)
async def enrol(request: web.Request) -> web.StreamResponse:
    """A join code becomes a node."""
    cloud = request.app[CLOUD]
    address = throttle.network_of(request.remote or "")
    await cloud.store.note(throttle.attempt, throttle.ENROL_ADDRESS, address)
    welcome = await cloud.store.run(enrolment.enrol, body(request, Enrolment))
    await cloud.store.note(throttle.give_back, throttle.ENROL_ADDRESS, address)
    return answer(welcome)


@access(Access.NODE)
async def config(request: web.Request) -> web.StreamResponse:
    """All that the organisation decides for the node's site."""
    cloud = request.app[CLOUD]
    signed = await cloud.store.read(sites.signed_config, node(request).id, cloud.public_url)
    return answer(SignedConfig(config=signed, now=cloud.clock.now()))


@access(Access.NODE)
async def collect(request: web.Request) -> web.StreamResponse:
    """The inbox: parks while there is nothing."""
    cloud = request.app[CLOUD]
    items = await _items(cloud, node(request), number(request, "since", 0))
    if not items:
        return web.Response(status=204, headers={"Cache-Control": "no-store"})
    return answer(InboxAnswer(items=tuple(items), now=cloud.clock.now()))


async def _items(cloud: Cloud, sender: Node, since: int) -> Sequence[Item]:
    end = cloud.clock.monotonic() + PARK * _random.uniform(0.9, 1.1)
    with cloud.bus.listen(node_topic(sender.id), organisation_topic(sender.organisation)) as waiter:
        items = await cloud.store.note(inbox.collect, sender.id, since)
        while not items and not waiter.closed and await waiter.wait(end - cloud.clock.monotonic()):
            if waiter.closed:
                break
            items = await cloud.store.read(inbox.waiting, sender.id, since)
    return items


@access(Access.NODE)
async def reconcile(request: web.Request) -> web.StreamResponse:
    """What the node holds, against what is known of it."""
    cloud = request.app[CLOUD]
    return answer(await cloud.store.run(reports.reconcile, node(request), body(request, Holdings)))


@access(Access.NODE)
async def events(request: web.Request) -> web.StreamResponse:
    """What happened at the node."""
    cloud = request.app[CLOUD]
    return answer(Acknowledged(n=await cloud.store.run(reports.take, node(request), body(request, Events))))


@access(Access.NODE)
async def release(request: web.Request) -> web.StreamResponse:
    """The node asks for an order."""
    cloud = request.app[CLOUD]
    return answer(await cloud.store.run(orders.release_for_node, node(request), body(request, Ask)))
