"""Who may call, in one place: every handler declares it, and the gate sees to it before the handler runs.

A handler is marked with `access`; `check_declared` refuses to start an application with a route that is not. The
gate also reads the body, within limits of size and time, and turns every error into a `wire.node.Failure`.
"""

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import random
import secrets
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import ValidationError

from pullprint.base.clock import Clock
from pullprint.base.errors import (
    BadRequest,
    ConfigError,
    NotAllowed,
    NotFound,
    NotSignedIn,
    PullprintError,
    TooLarge,
    TooMany,
)
from pullprint.cloud import nodes, sessions
from pullprint.cloud.bus import Bus
from pullprint.cloud.config import Settings
from pullprint.cloud.nodes import Node
from pullprint.cloud.presence import Presence
from pullprint.cloud.rosters import Kept
from pullprint.cloud.sessions import SignedIn
from pullprint.cloud.store import Store, StoreBusy
from pullprint.cloud.tally import Tally
from pullprint.cloud.users import Passwords
from pullprint.wire import api, signature
from pullprint.wire import node as channel
from pullprint.wire.node import Failure
from pullprint.wire.types import Message

BODY_IDLE = 10.0
"""Seconds between two pieces of a body."""
BODY_TIME = 60.0
"""Seconds for a whole body."""
STRANGERS_LIMIT = 1 << 17
"""Bytes that are read of a request before anything is known of its sender."""

AT_ONCE = 16
"""Requests of nodes that are being authenticated at a time. People's requests wait behind these, not behind all."""
LINE = 5_000
LINE_TIME = 15.0
"""Requests that wait for that, and seconds for which they do, at most: a node gives up after `node.client.TIMEOUT`, and
what was worked on until then is lost."""
RETRY_AFTER = (5, 30)
"""Seconds after which one that was sent away comes again, by chance."""

_log = logging.getLogger(__name__)
_random = random.SystemRandom()

M = TypeVar("M", bound=Message)


class Access(StrEnum):
    """Who may call a route."""

    ANYONE = "anyone"
    USER = "user"
    NODE = "node"
    ENROLMENT = "enrolment"
    """A host that is not a node yet: signed by the key that it brings."""
    METRICS = "metrics"
    """Whoever is on this very host, and whoever has the token of the settings; behind a proxy only the latter."""


class Unexpected(PullprintError):
    """Something went wrong in the cloud; its administrator finds it as {reference}. Held jobs are safe; try again."""

    code = "unexpected"


class NotFoundHere(NotFound):
    """There is nothing at this address."""


class MethodRefused(BadRequest):
    """This address does not take such a request. Nothing was changed."""

    code = "method-refused"
    http_status = 405


class Line:
    """Requests of nodes on their way to the database, which takes the oldest first.

    When thousands come back at once, each is worked on while its sender still waits, or sent away at little cost; else
    all would be given up in turn by senders that then ask again.
    """

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)
        self.waiting = 0
        """Requests that do."""

    @contextlib.asynccontextmanager
    async def turn(self, request: web.Request) -> AsyncIterator[None]:
        """Wait for it. Raises StoreBusy, and ConnectionResetError when the sender has gone meanwhile."""
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        try:
            if _has_gone(request):
                raise ConnectionResetError("nobody waits for the answer")
            yield
        finally:
            self._free.release()

    async def _wait(self) -> None:
        if self.waiting >= LINE:
            raise StoreBusy
        self.waiting += 1
        try:
            async with asyncio.timeout(LINE_TIME):
                await self._free.acquire()
        except TimeoutError as error:
            raise StoreBusy from error
        finally:
            self.waiting -= 1


@dataclass(frozen=True, slots=True)
class Cloud:
    """What the handlers work with."""

    settings: Settings
    clock: Clock
    store: Store
    bus: Bus
    passwords: Passwords
    public_url: str
    presence: Presence = field(default_factory=Presence)
    tally: Tally = field(default_factory=Tally)
    line: Line = field(default_factory=Line)
    rosters: Kept = field(default_factory=dict)
    """Rosters as they were signed last."""


CLOUD = web.AppKey("cloud", Cloud)
_USER = web.RequestKey("user", SignedIn)
_NODE = web.RequestKey("node", Node)
_BODY = web.RequestKey("body", bytes)
_DECLARED = "pullprint_access"
_STREAMS = "pullprint_streams"

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def access(who: Access, *, streams: str = "") -> Callable[[Handle], Handle]:
    """Declare who may call the handler; one that *streams* reads its body, of this content type, by itself and within
    limits of its own. That is for users only: what a node sends is signed as a whole."""
    if streams and who is not Access.USER:
        raise ValueError("only a route for users can read its own body")

    def declare(handler: Handle) -> Handle:
        setattr(handler, _DECLARED, who)
        setattr(handler, _STREAMS, streams)
        return handler

    return declare


def check_declared(app: web.Application) -> None:
    """Raises ConfigError naming a route whose handler does not say who may call it."""
    for route in app.router.routes():
        if not isinstance(declared(route.handler), Access):
            raise ConfigError(path="the routes", reason=f"{route.method} {route.resource} does not say who may call it")


def declared(handler: object) -> Access | None:
    """Who may call *handler*."""
    return getattr(handler, _DECLARED, None)


def user(request: web.Request) -> SignedIn:
    """Who calls a route for users."""
    return request[_USER]


def node(request: web.Request) -> Node:
    """Who calls a route for nodes."""
    return request[_NODE]


def body(request: web.Request, kind: type[M]) -> M:
    """The request's body as a *kind*. Raises BadRequest."""
    try:
        return kind.model_validate_json(request[_BODY])
    except ValidationError as error:
        # The error's own text has the values in it.
        where = ".".join(str(word) for word in error.errors(include_input=False, include_url=False)[0]["loc"])
        raise BadRequest(reason=f"{where or 'the body'} is missing or not as it should be") from error
    except RecursionError as error:
        raise BadRequest(reason="the body is nested too deeply") from error


def number(request: web.Request, name: str, default: int) -> int:
    """A whole number of the query. Raises BadRequest."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequest(reason=f"{name} is not a number")
    return int(text)


def answer(message: Message, status: int = 200) -> web.Response:
    """*message* as JSON, which nobody keeps."""
    return web.Response(
        body=message.model_dump_json().encode(),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def answers(messages: list[M]) -> web.Response:
    """A list of messages as JSON."""
    text = "[" + ",".join(message.model_dump_json() for message in messages) + "]"
    return web.Response(body=text.encode(), content_type="application/json", headers={"Cache-Control": "no-store"})


@web.middleware
async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The one middleware: errors outside, authentication inside, then the handler."""
    try:
        response = await _admit(_from_caller(request), handler)
    except PullprintError as error:
        response = _failure(error)
    except web.HTTPException as error:
        response = _failure(MethodRefused() if error.status == 405 else NotFoundHere())
    except asyncio.CancelledError:
        raise
    except ConnectionError:
        if not _has_gone(request):
            raise
        response = web.Response(status=503)  # nobody reads it, and aiohttp writes no traceback to the log
    except Exception as error:  # noqa: BLE001  (the root of every request)
        response = _failure(_logged(request, error))
    return response


def _has_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def protect(_request: web.Request, response: web.StreamResponse) -> None:
    """What every answer says of itself, also one that is written piece by piece: for `on_response_prepare`."""
    response.headers["Server"] = "pullprint-cloud"
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


def _from_caller(request: web.Request) -> web.Request:
    """The request with the caller's address as its `remote`, also behind a proxy.

    Only the last address is one that the proxy itself has seen; those before it are what the caller says. Without a
    proxy the header is anybody's, and not looked at.
    """
    if not request.app[CLOUD].settings.proxy:
        return request
    last = ",".join(request.headers.getall("X-Forwarded-For", [])).rpartition(",")[2].strip()
    try:
        return request.clone(remote=str(ipaddress.ip_address(last)))
    except ValueError:
        return request


async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    who = declared(request.match_info.handler)
    if who is None:  # aiohttp's own handlers for unknown addresses and methods
        return await handler(request)
    cloud = request.app[CLOUD]
    if who in (Access.NODE, Access.ENROLMENT):
        await _admit_node(request, cloud, who)
        return await handler(request)
    if who is Access.METRICS:
        _admit_metrics(request, cloud.settings)
    if who is Access.USER:
        signed_in = await cloud.store.read(sessions.find, token(request))
        if signed_in.stale:
            await cloud.store.note(sessions.touch, signed_in.token_hash)
        request[_USER] = signed_in
    if request.method not in ("GET", "HEAD"):
        _refuse_foreign_pages(request)
    if streams := getattr(request.match_info.handler, _STREAMS, ""):
        _refuse_compressed(request)
        _refuse_type(request, streams)
    else:
        request[_BODY] = await _read(request, api.BODY_LIMIT)
        if b"\\u0000" in request[_BODY]:
            raise BadRequest(reason="it has a character that no text has")  # PostgreSQL takes none with it
    return await handler(request)


async def _admit_node(request: web.Request, cloud: Cloud, who: Access) -> None:
    claim = signature.read(request.headers.get("Signature-Input", ""), request.headers.get("Signature", ""))
    limit = STRANGERS_LIMIT
    length = request.content_length if request.can_read_body else 0
    if who is Access.NODE and (length is None or length > limit):
        # Whoever wants to be read at length must at least know the id of a node.
        limit = channel.BODY_LIMIT if await cloud.store.read(nodes.is_known, claim.node) else limit
    data = await _read(request, limit)
    signed = nodes.Request(
        request.method,
        request.url.raw_path,
        request.url.raw_query_string,
        data,
        request.headers.get("Content-Digest", ""),
    )
    request[_BODY] = data
    identity = body(request, channel.Enrolment).identity if who is Access.ENROLMENT else b""
    async with cloud.line.turn(request):
        if who is Access.NODE:
            request[_NODE] = await cloud.store.note(nodes.authenticate, claim, signed)
        else:
            await cloud.store.note(nodes.authenticate_new, claim, identity, signed)


def _admit_metrics(request: web.Request, settings: Settings) -> None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if settings.metrics_token and scheme.lower() == "bearer":
        if hmac.compare_digest(value.strip().encode(), settings.metrics_token.encode()):
            return
        raise NotSignedIn
    try:
        # Through a proxy everybody comes from this host, and what it says of them may be forgotten in its settings.
        here = not settings.proxy and ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        here = False
    if not here:
        raise NotSignedIn


def token(request: web.Request) -> str:
    """The session's token, from the cookie or as a bearer's; empty without one."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    return request.cookies.get(api.COOKIE, "")


def _refuse_foreign_pages(request: web.Request) -> None:
    # SameSite and the content type already stop them; this is for browsers that get one of the two wrong.
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise NotAllowed(reason="another site's page may not do this in your name")
    if request.method == "POST":
        _refuse_type(request, "application/json")


def _refuse_type(request: web.Request, expected: str) -> None:
    if request.content_type != expected:
        raise BadRequest(reason=f"its Content-Type is not {expected}")


def _refuse_compressed(request: web.Request) -> None:
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise BadRequest(reason="its body is compressed")


async def _read(request: web.Request, limit: int) -> bytes:
    _refuse_compressed(request)
    if (request.content_length or 0) > limit:
        raise TooLarge(what="The request", limit=f"{limit >> 10} KiB")
    if not request.can_read_body:
        return b""
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_TIME):
            while True:
                async with asyncio.timeout(BODY_IDLE):
                    piece = await request.content.readany()
                if not piece:
                    return bytes(data)
                data += piece
                if len(data) > limit:
                    raise TooLarge(what="The request", limit=f"{limit >> 10} KiB")
    except TimeoutError as error:
        raise BadRequest(reason="its body did not arrive in time") from error
    except web.RequestPayloadError as error:
        raise BadRequest(reason="its body is damaged") from error


def _failure(error: PullprintError) -> web.Response:
    response = answer(Failure(code=error.code, sentence=error.sentence), error.http_status)
    if isinstance(error, TooMany):
        response.headers["Retry-After"] = error.fields.get("seconds", "60")
    if isinstance(error, StoreBusy):
        response.headers["Retry-After"] = str(_random.randint(*RETRY_AFTER))
    if isinstance(error, NotSignedIn):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _logged(request: web.Request, error: Exception) -> Unexpected:
    """Note where it happened; not what the exception says, which may quote a title or a key."""
    reference = secrets.token_hex(4)
    frames = "".join(traceback.format_tb(error.__traceback__)[-6:])
    route = request.match_info.route.resource
    _log.error("%s: %s in %s %s\n%s", reference, type(error).__name__, request.method, route, frames)
    return Unexpected(reference=reference)
