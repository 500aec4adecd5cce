"""The node channel: `wire.node` over HTTP."""

import random
from collections.abc import Sequence

from aiohttp import web

from pullprint.base.errors import PullprintError
from pullprint.cloud import (
    enrolment,
    inbox,
    loans,
    logins,
    orders,
    pictures,
    printers,
    reports,
    rosters,
    sites,
    throttle,
    uploads,
)
from pullprint.cloud.bus import node_topic, organisation_topic
from pullprint.cloud.gate import CLOUD, Access, Cloud, access, answer, body, node, number
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import Transaction
from pullprint.wire.loans import Loans, LoansTaken, ProxyVote
from pullprint.wire.node import (
    PARK,
    Acknowledged,
    Ask,
    CertificateAsk,
    Enrolment,
    Events,
    Holdings,
    InboxAnswer,
    Item,
    LoginAsk,
    PartAsk,
    PrinterStates,
    SignedConfig,
    TokenAsk,
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
    router.add_get("/node/v1/candidates", candidates, allow_head=False)
    router.add_post("/node/v1/parts", hand_over_part)
    router.add_post("/node/v1/certificate", renew_certificate)
    router.add_post("/node/v1/loans", lend_votes)
    router.add_post("/node/v1/loans/return", return_votes)
    router.add_post("/node/v1/loans/votes", vote_for_sleeper)
    router.add_post("/node/v1/printers", note_printers)
    router.add_post("/node/v1/logins", begin_login)
    router.add_post("/node/v1/logins/token", redeem_login)
    router.add_post("/node/v1/logins/withdraw", withdraw_login)
    router.add_post("/node/v1/pictures", pictures.take_keys)
    router.add_get("/node/v1/uploads/{id}", uploads.hand_over, allow_head=False)
    router.add_post("/node/v1/uploads/{id}", uploads.conclude)


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
    signed, roster = await cloud.store.read(_config, node(request), cloud)
    return answer(SignedConfig(config=signed, roster=roster, now=cloud.clock.now()))


def _config(t: Transaction, sender: Node, cloud: Cloud) -> tuple[str, str]:
    roster = rosters.signed(t, sender.organisation, sender.site, cloud.rosters)
    return sites.signed_config(t, sender.id, cloud.public_url), roster


@access(Access.NODE)
async def collect(request: web.Request) -> web.StreamResponse:
    """The inbox: parks while there is nothing."""
    cloud = request.app[CLOUD]
    with cloud.presence.park(node(request).id, request.transport):
        items = await _items(cloud, node(request), number(request, "since", 0))
    if not items:
        return web.Response(status=204, headers={"Cache-Control": "no-store"})
    return answer(InboxAnswer(items=tuple(items), now=cloud.clock.now()))


async def _items(cloud: Cloud, sender: Node, since: int) -> Sequence[Item]:
    end = cloud.clock.monotonic() + PARK * _random.uniform(0.9, 1.1)
    with cloud.bus.listen(node_topic(sender.id), organisation_topic(sender.organisation)) as waiter:
        items = await cloud.store.read(inbox.look, sender.id, since)
        if items is None:
            items = await cloud.store.note(inbox.collect, sender.id, since)
        while not items and not waiter.closed and await waiter.wait(end - cloud.clock.monotonic()):
            if waiter.closed:
                break
            items = await cloud.store.read(inbox.waiting, sender.id, since)
    return items


@access(Access.NODE)
async def reconcile(request: web.Request) -> web.StreamResponse:
    """What the node holds, against what is known of it."""
    cloud, holdings = request.app[CLOUD], body(request, Holdings)
    differences = await cloud.store.run(reports.reconcile, node(request), holdings)
    await cloud.store.run(rosters.note, node(request), holdings)
    return answer(differences)


@access(Access.NODE)
async def events(request: web.Request) -> web.StreamResponse:
    """What happened at the node."""
    cloud = request.app[CLOUD]
    return answer(Acknowledged(n=await cloud.store.run(reports.take, node(request), body(request, Events))))


@access(Access.NODE)
async def release(request: web.Request) -> web.StreamResponse:
    """The node asks for an order."""
    cloud = request.app[CLOUD]
    item = await cloud.store.run(orders.release_for_node, node(request), body(request, Ask))
    cloud.tally.issued += 1
    return answer(item)


@access(Access.NODE)
async def candidates(request: web.Request) -> web.StreamResponse:
    """Who would hold a job of that size."""
    cloud, size = request.app[CLOUD], number(request, "size", 0)
    return answer(await cloud.store.read(rosters.candidates, node(request), size))


@access(Access.NODE)
async def hand_over_part(request: web.Request) -> web.StreamResponse:
    """The cloud's part of a held job, to place copies of it."""
    cloud = request.app[CLOUD]
    return answer(await cloud.store.run(orders.part_for_holder, node(request), body(request, PartAsk)))


@access(Access.NODE)
async def lend_votes(request: web.Request) -> web.StreamResponse:
    """The node goes to sleep."""
    return answer(await request.app[CLOUD].store.run(loans.take, node(request), body(request, Loans)))


@access(Access.NODE)
async def return_votes(request: web.Request) -> web.StreamResponse:
    """The node is awake."""
    return answer(await request.app[CLOUD].store.run(loans.give, node(request), body(request, LoansTaken)))


@access(Access.NODE)
async def vote_for_sleeper(request: web.Request) -> web.StreamResponse:
    """The node asks for the vote of one that sleeps."""
    return answer(await request.app[CLOUD].store.run(loans.vote, node(request), body(request, ProxyVote)))


@access(Access.NODE)
async def renew_certificate(request: web.Request) -> web.StreamResponse:
    """A new certificate for the mesh."""
    cloud = request.app[CLOUD]
    return answer(await cloud.store.read(enrolment.renew_certificate, node(request), body(request, CertificateAsk)))


@access(Access.NODE)
async def begin_login(request: web.Request) -> web.StreamResponse:
    """A local account of the node wants to be a user."""
    cloud, account = request.app[CLOUD], body(request, LoginAsk).account
    return answer(await cloud.store.run(logins.begin, node(request), account, cloud.public_url))


@access(Access.NODE)
async def redeem_login(request: web.Request) -> web.StreamResponse:
    """The node asks what became of it."""
    cloud, device_code = request.app[CLOUD], body(request, TokenAsk).device_code
    outcome = await cloud.store.run(logins.redeem, node(request), device_code)
    if isinstance(outcome, PullprintError):
        raise outcome
    return answer(outcome)


@access(Access.NODE)
async def withdraw_login(request: web.Request) -> web.StreamResponse:
    """Nobody waits for it any more."""
    cloud, device_code = request.app[CLOUD], body(request, TokenAsk).device_code
    await cloud.store.run(logins.withdraw, node(request), device_code)
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


@access(Access.NODE)
async def note_printers(request: web.Request) -> web.StreamResponse:
    """What printers of the node's site said of themselves."""
    cloud = request.app[CLOUD]
    await cloud.store.note(printers.take, node(request), body(request, PrinterStates))
    return web.Response(status=204, headers={"Cache-Control": "no-store"})
