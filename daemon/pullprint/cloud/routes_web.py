"""The web API: `wire.api` over HTTP; what belongs to signing in is in `routes_sessions`."""

import asyncio

from aiohttp import web

from pullprint.base.errors import NotFound
from pullprint.cloud import jobs, orders, overview, pictures, printers, sessions, signs, stream, throttle, uploads
from pullprint.cloud.bus import jobs_topic
from pullprint.cloud.gate import CLOUD, Access, access, answer, answers, body, number, token, user
from pullprint.cloud.store import Transaction
from pullprint.model.job import JOB_ID
from pullprint.wire.api import WAIT_LIMIT, JobList
from pullprint.wire.views import ClaimRequest, ReleaseRequest


def add(app: web.Application) -> None:
    """The API's routes."""
    router = app.router
    router.add_get("/api/v1/events", stream.events, allow_head=False)
    router.add_get("/api/v1/jobs", list_jobs, allow_head=False)
    router.add_get("/api/v1/history", show_history, allow_head=False)
    router.add_get("/api/v1/jobs/{id}", show_job, allow_head=False)
    router.add_get("/api/v1/jobs/{id}/trace", show_trace, allow_head=False)
    router.add_post("/api/v1/jobs/{id}/release", release)
    router.add_post("/api/v1/jobs/{id}/settle", settle)
    router.add_delete("/api/v1/jobs/{id}", cancel)
    router.add_post("/api/v1/claim", claim)
    router.add_post("/api/v1/pictures", pictures.show)
    router.add_post("/api/v1/uploads", uploads.offer)
    router.add_put("/api/v1/uploads/{id}", uploads.receive)
    router.add_get("/api/v1/mesh", overview.show, allow_head=False)
    router.add_get("/api/v1/printers", list_printers, allow_head=False)
    router.add_get("/api/v1/printers/{which:[0-9A-Za-z -]+}", show_printer, allow_head=False)
    router.add_get("/api/v1/printers/{id:[0-9a-z-]+}/sign.{kind:pdf|png|svg}", show_sign, allow_head=False)


@access(Access.USER)
async def list_jobs(request: web.Request) -> web.StreamResponse:
    """The caller's jobs; parks while the version is the one that it knows."""
    cloud, caller = request.app[CLOUD], user(request)
    known, wait = number(request, "since", -1), min(number(request, "wait", 0), WAIT_LIMIT)
    end = cloud.clock.monotonic() + wait
    with cloud.bus.listen(jobs_topic(caller.organisation, caller.user)) as waiter:
        listing: JobList = await cloud.store.read(jobs.listing, caller.organisation, caller.user)
        while listing.version == known and not waiter.closed:
            if not await waiter.wait(end - cloud.clock.monotonic()):
                break
            await cloud.store.read(sessions.find, token(request))  # it may have ended meanwhile
            listing = await cloud.store.read(jobs.listing, caller.organisation, caller.user)
    return answer(listing)


@access(Access.USER)
async def show_history(request: web.Request) -> web.StreamResponse:
    """What ended, a page at a time."""
    caller, before = user(request), request.query.get("before", "")
    return answer(await request.app[CLOUD].store.read(jobs.history, caller.organisation, caller.user, before))


@access(Access.USER)
async def show_job(request: web.Request) -> web.StreamResponse:
    """One job."""
    caller = user(request)
    return answer(await request.app[CLOUD].store.read(jobs.view, caller.organisation, caller.user, _job_id(request)))


@access(Access.USER)
async def show_trace(request: web.Request) -> web.StreamResponse:
    """Every step of a job's way."""
    caller = user(request)
    return answers(await request.app[CLOUD].store.read(jobs.steps, caller.organisation, caller.user, _job_id(request)))


@access(Access.USER)
async def release(request: web.Request) -> web.StreamResponse:
    """Print it there."""
    cloud, caller, wanted = request.app[CLOUD], user(request), body(request, ReleaseRequest)
    view = await cloud.store.run(
        orders.release_for_user,
        caller.organisation,
        caller.user,
        _job_id(request),
        wanted,
        cloud.presence.is_here,
    )
    cloud.tally.issued += 1
    return answer(view, 202)


@access(Access.USER)
async def settle(request: web.Request) -> web.StreamResponse:
    """It came out."""
    caller = user(request)
    return answer(await request.app[CLOUD].store.run(jobs.settle, caller.organisation, caller.user, _job_id(request)))


@access(Access.USER)
async def cancel(request: web.Request) -> web.StreamResponse:
    """Delete it."""
    caller = user(request)
    view = await request.app[CLOUD].store.run(jobs.cancel, caller.organisation, caller.user, _job_id(request))
    return answer(view, 202)


@access(Access.USER)
async def claim(request: web.Request) -> web.StreamResponse:
    """A job without an owner becomes the caller's."""
    cloud, caller, code = request.app[CLOUD], user(request), body(request, ClaimRequest).code
    await cloud.store.note(_count_claim, caller.organisation, caller.user, throttle.network_of(request.remote or ""))
    return answer(await cloud.store.run(jobs.claim, caller.organisation, caller.user, code))


@access(Access.USER)
async def list_printers(request: web.Request) -> web.StreamResponse:
    """The printers to choose from."""
    return answers(await request.app[CLOUD].store.read(printers.views, user(request).organisation))


@access(Access.USER)
async def show_printer(request: web.Request) -> web.StreamResponse:
    """One printer, by the id in its QR code or by its code."""
    which = request.match_info["which"]
    return answer(await request.app[CLOUD].store.read(printers.view, user(request).organisation, which))


@access(Access.USER)
async def show_sign(request: web.Request) -> web.StreamResponse:
    """A printer's sign."""
    cloud, kind = request.app[CLOUD], request.match_info["kind"]
    sign = await cloud.store.read(signs.sign, user(request).organisation, request.match_info["id"], cloud.public_url)
    content_type, make = signs.KINDS[kind]
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{signs.file_name(sign, kind)}"',
    }
    return web.Response(body=await asyncio.to_thread(make, sign), content_type=content_type, headers=headers)


def _count_claim(t: Transaction, organisation_id: str, name: str, address: str) -> None:
    throttle.attempt(t, throttle.CLAIM_ADDRESS, address)
    throttle.attempt(t, throttle.CLAIM_USER, organisation_id, name)


def _job_id(request: web.Request) -> str:
    job_id = request.match_info["id"]
    if not JOB_ID.fullmatch(job_id):
        raise NotFound(what="job")
    return job_id
