"""The web API: `wire.api` over HTTP."""

from aiohttp import web

from pullprint.base.errors import BadRequest, NotFound, PullprintError
from pullprint.cloud import jobs, orders, printers, sessions, throttle, users
from pullprint.cloud.bus import jobs_topic
from pullprint.cloud.gate import CLOUD, Access, Cloud, access, answer, answers, body, number, token, user
from pullprint.cloud.store import Transaction
from pullprint.model.job import JOB_ID
from pullprint.wire.api import COOKIE, WAIT_LIMIT, JobList, Session, SignIn
from pullprint.wire.views import ClaimRequest, ReleaseRequest

_ACCOUNTS_LIMIT = 4
"""Organisations in which one name is tried with one password."""


class SignInRefused(PullprintError):
    """The name or the password is wrong. Nothing was changed; your jobs are still held."""

    code = "sign-in-refused"
    http_status = 401


class WhichOrganisation(BadRequest):
    """This name and password fit in several organisations: say which one. Nothing was changed."""

    code = "which-organisation"


def add(app: web.Application) -> None:
    """The API's routes."""
    router = app.router
    router.add_post("/api/v1/session", sign_in)
    router.add_get("/api/v1/session", show_session, allow_head=False)
    router.add_delete("/api/v1/session", sign_out)
    router.add_get("/api/v1/jobs", list_jobs, allow_head=False)
    router.add_get("/api/v1/jobs/{id}", show_job, allow_head=False)
    router.add_get("/api/v1/jobs/{id}/trace", show_trace, allow_head=False)
    router.add_post("/api/v1/jobs/{id}/release", release)
    router.add_post("/api/v1/jobs/{id}/settle", settle)
    router.add_delete("/api/v1/jobs/{id}", cancel)
    router.add_post("/api/v1/claim", claim)
    router.add_get("/api/v1/printers", list_printers, allow_head=False)


@access(Access.ANYONE)
async def sign_in(request: web.Request) -> web.StreamResponse:
    """A name and a password become a session."""
    cloud, wanted = request.app[CLOUD], body(request, SignIn)
    name, address = wanted.name.lower(), throttle.network_of(request.remote or "")
    await cloud.store.note(_count_sign_in, name, address)
    account = await _account(cloud, wanted)
    await cloud.store.note(_forgive_sign_in, name, address)
    value, session = await cloud.store.run(sessions.begin, account.organisation, account.name, token(request))
    response = answer(_session(session, value), 201)
    response.set_cookie(COOKIE, value, max_age=sessions.LIMIT, path="/", secure=True, httponly=True, samesite="Strict")
    return response


@access(Access.USER)
async def show_session(request: web.Request) -> web.StreamResponse:
    """Who is signed in."""
    return answer(_session(user(request)))


@access(Access.USER)
async def sign_out(request: web.Request) -> web.StreamResponse:
    """The session ends."""
    await request.app[CLOUD].store.run(sessions.end, user(request).token_hash)
    response = web.Response(status=204, headers={"Cache-Control": "no-store"})
    response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return response


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
            listing = await cloud.store.read(jobs.listing, caller.organisation, caller.user)
    return answer(listing)


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
    caller, wanted = user(request), body(request, ReleaseRequest)
    view = await request.app[CLOUD].store.run(
        orders.release_for_user, caller.organisation, caller.user, _job_id(request), wanted
    )
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


async def _account(cloud: Cloud, wanted: SignIn) -> users.Account:
    accounts = await cloud.store.read(users.accounts_named, wanted.name, wanted.organisation, _ACCOUNTS_LIMIT)
    password = wanted.password.get_secret_value()
    fitting = [account for account in accounts if await cloud.passwords.check(password, account.password)]
    if not accounts:
        await cloud.passwords.check(password, None)
    if len(fitting) > 1:
        raise WhichOrganisation
    if not fitting:
        raise SignInRefused
    return fitting[0]


def _count_sign_in(t: Transaction, name: str, address: str) -> None:
    throttle.attempt(t, throttle.SIGN_IN_ADDRESS, address)
    throttle.attempt(t, throttle.SIGN_IN_NAME, name)
    throttle.attempt(t, throttle.SIGN_IN_NAME_AND_ADDRESS, name, address)


def _forgive_sign_in(t: Transaction, name: str, address: str) -> None:
    throttle.give_back(t, throttle.SIGN_IN_ADDRESS, address)
    throttle.give_back(t, throttle.SIGN_IN_NAME, name)
    throttle.give_back(t, throttle.SIGN_IN_NAME_AND_ADDRESS, name, address)


def _count_claim(t: Transaction, organisation_id: str, name: str, address: str) -> None:
    throttle.attempt(t, throttle.CLAIM_ADDRESS, address)
    throttle.attempt(t, throttle.CLAIM_USER, organisation_id, name)


def _session(session: sessions.SignedIn, value: str = "") -> Session:
    return Session(user=session.user, organisation=session.organisation_name, token=value, expires=session.expires)


def _job_id(request: web.Request) -> str:
    job_id = request.match_info["id"]
    if not JOB_ID.fullmatch(job_id):
        raise NotFound(what="job")
    return job_id
