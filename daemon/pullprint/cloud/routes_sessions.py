"""Signing in, also by an invitation, where else one is signed in, and letting local accounts in: that part of
`wire.api`."""

import re

from aiohttp import web

from pullprint.base.errors import BadRequest, NotFound, PullprintError
from pullprint.cloud import accounts, invitations, logins, sessions, throttle, user_agent, users
from pullprint.cloud.gate import CLOUD, Access, Cloud, access, answer, answers, body, token, user
from pullprint.cloud.sessions import SignedIn
from pullprint.cloud.store import Transaction
from pullprint.wire.api import (
    COOKIE,
    Acceptance,
    Invitation,
    InvitationToken,
    LoginAnswer,
    PendingLogin,
    Session,
    SessionView,
    SignIn,
)

_ID = re.compile(r"[0-9a-f]{16}")
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
    """The routes."""
    router = app.router
    router.add_post("/api/v1/session", sign_in)
    router.add_get("/api/v1/session", show_session, allow_head=False)
    router.add_delete("/api/v1/session", sign_out)
    router.add_post("/api/v1/welcome", show_invitation)
    router.add_post("/api/v1/welcome/accept", accept_invitation)
    router.add_get("/api/v1/sessions", list_sessions, allow_head=False)
    router.add_delete("/api/v1/sessions", sign_out_everywhere)
    router.add_delete("/api/v1/sessions/{id}", sign_out_there)
    router.add_get("/api/v1/logins/{code}", show_login, allow_head=False)
    router.add_post("/api/v1/logins/{code}", answer_login)


@access(Access.ANYONE)
async def sign_in(request: web.Request) -> web.StreamResponse:
    """A name and a password become a session."""
    cloud, wanted = request.app[CLOUD], body(request, SignIn)
    name, address = wanted.name.lower(), throttle.network_of(request.remote or "")
    await cloud.store.note(_count_sign_in, name, address)
    account = await _account(cloud, wanted)
    await cloud.store.note(_forgive_sign_in, name, address)
    value, session = await cloud.store.run(
        sessions.begin,
        account.organisation,
        account.name,
        replaces=token(request),
        name=_place(request),
        remember=wanted.remember,
    )
    return _signed_in(session, value, remember=wanted.remember)


@access(Access.ANYONE)
async def show_invitation(request: web.Request) -> web.StreamResponse:
    """Whose the link is; it stays good."""
    cloud, invited = request.app[CLOUD], body(request, InvitationToken).token.get_secret_value()
    address = throttle.network_of(request.remote or "")
    await cloud.store.note(throttle.attempt, throttle.WELCOME_ADDRESS, address)
    found: Invitation = await cloud.store.read(invitations.whose, invited)
    await cloud.store.note(throttle.give_back, throttle.WELCOME_ADDRESS, address)
    return answer(found)


@access(Access.ANYONE)
async def accept_invitation(request: web.Request) -> web.StreamResponse:
    """The link is used up for a password and a session."""
    cloud, wanted = request.app[CLOUD], body(request, Acceptance)
    invited, address = wanted.token.get_secret_value(), throttle.network_of(request.remote or "")
    await cloud.store.note(throttle.attempt, throttle.WELCOME_ADDRESS, address)
    await cloud.store.read(invitations.whose, invited)  # first, because a hash costs a core and 64 MiB
    encoded = await cloud.passwords.encode(wanted.password.get_secret_value())
    value, session = await cloud.store.run(
        _accept, invited, encoded, replaces=token(request), name=_place(request), remember=wanted.remember
    )
    await cloud.store.note(throttle.give_back, throttle.WELCOME_ADDRESS, address)
    return _signed_in(session, value, remember=wanted.remember)


@access(Access.USER)
async def show_session(request: web.Request) -> web.StreamResponse:
    """Who is signed in."""
    return answer(_session(user(request)))


@access(Access.USER)
async def sign_out(request: web.Request) -> web.StreamResponse:
    """The session ends."""
    await request.app[CLOUD].store.run(sessions.end, user(request).token_hash)
    return _signed_out()


@access(Access.USER)
async def list_sessions(request: web.Request) -> web.StreamResponse:
    """Where the caller is signed in, and the local accounts that are theirs."""
    return answers(await request.app[CLOUD].store.read(_list, user(request)))


@access(Access.USER)
async def sign_out_there(request: web.Request) -> web.StreamResponse:
    """One session ends, or one local account is the caller's no more."""
    which = request.match_info["id"]
    if not _ID.fullmatch(which):
        raise NotFound(what="session")
    await request.app[CLOUD].store.run(_end_one, user(request), which)
    return _done()


@access(Access.USER)
async def sign_out_everywhere(request: web.Request) -> web.StreamResponse:
    """All of the caller's sessions end."""
    caller = user(request)
    await request.app[CLOUD].store.run(sessions.end_all, caller.organisation, caller.user)
    return _signed_out()


@access(Access.USER)
async def show_login(request: web.Request) -> web.StreamResponse:
    """Who wants to be let in with this code."""
    cloud, caller = request.app[CLOUD], user(request)
    address = throttle.network_of(request.remote or "")
    await cloud.store.note(_count_login, caller, address)
    found: PendingLogin = await cloud.store.read(logins.pending, caller.organisation, request.match_info["code"])
    await cloud.store.note(_forgive_login, caller, address)
    return answer(found)


@access(Access.USER)
async def answer_login(request: web.Request) -> web.StreamResponse:
    """That local account is the caller's, or it is not."""
    cloud, caller, allow = request.app[CLOUD], user(request), body(request, LoginAnswer).allow
    address = throttle.network_of(request.remote or "")
    await cloud.store.note(_count_login, caller, address)
    code = request.match_info["code"]
    await cloud.store.run(logins.answer, caller.organisation, caller.user, code, allow=allow)
    await cloud.store.note(_forgive_login, caller, address)
    return _done()


async def _account(cloud: Cloud, wanted: SignIn) -> users.Account:
    accounts = await cloud.store.read(users.accounts_named, wanted.name, wanted.organisation, _ACCOUNTS_LIMIT)
    password = wanted.password.get_secret_value()
    fitting = [account for account in accounts if await cloud.passwords.check(password, account.password)]
    if not accounts:
        await cloud.passwords.check(password, users.NO_PASSWORD)
    if len(fitting) > 1:
        raise WhichOrganisation
    if not fitting:
        raise SignInRefused
    return fitting[0]


def _accept(
    t: Transaction, invited: str, encoded: str, replaces: str, name: str, *, remember: bool
) -> tuple[str, SignedIn]:
    organisation_id, invitee = invitations.accept(t, invited, encoded)
    return sessions.begin(t, organisation_id, invitee, replaces, name, remember=remember)


def _list(t: Transaction, caller: SignedIn) -> list[SessionView]:
    return [*sessions.listing(t, caller), *accounts.listing(t, caller.organisation, caller.user)]


def _end_one(t: Transaction, caller: SignedIn, which: str) -> None:
    try:
        sessions.end_one(t, caller.organisation, caller.user, which)
    except NotFound:
        accounts.release(t, caller.organisation, caller.user, which)


def _count_sign_in(t: Transaction, name: str, address: str) -> None:
    throttle.attempt(t, throttle.SIGN_IN_ADDRESS, address)
    throttle.attempt(t, throttle.SIGN_IN_NAME, name)
    throttle.attempt(t, throttle.SIGN_IN_NAME_AND_ADDRESS, name, address)


def _forgive_sign_in(t: Transaction, name: str, address: str) -> None:
    throttle.give_back(t, throttle.SIGN_IN_ADDRESS, address)
    throttle.give_back(t, throttle.SIGN_IN_NAME, name)
    throttle.give_back(t, throttle.SIGN_IN_NAME_AND_ADDRESS, name, address)


def _count_login(t: Transaction, caller: SignedIn, address: str) -> None:
    throttle.attempt(t, throttle.LOGIN_ADDRESS, address)
    throttle.attempt(t, throttle.LOGIN_USER, caller.organisation, caller.user)


def _forgive_login(t: Transaction, caller: SignedIn, address: str) -> None:
    throttle.give_back(t, throttle.LOGIN_ADDRESS, address)
    throttle.give_back(t, throttle.LOGIN_USER, caller.organisation, caller.user)


def _session(session: SignedIn, value: str = "") -> Session:
    return Session(user=session.user, organisation=session.organisation_name, token=value, expires=session.expires)


def _place(request: web.Request) -> str:
    """Browser and system, for the list of sessions."""
    return user_agent.describe(request.headers.get("User-Agent", ""))


def _signed_in(session: SignedIn, value: str, *, remember: bool) -> web.Response:
    response = answer(_session(session, value), 201)
    # Without an age the cookie is gone when the browser ends.
    age = sessions.REMEMBERED.limit if remember else None
    response.set_cookie(COOKIE, value, max_age=age, path="/", secure=True, httponly=True, samesite="Strict")
    return response


def _done() -> web.Response:
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


def _signed_out() -> web.Response:
    response = _done()
    response.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return response
