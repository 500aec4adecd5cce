"""The page's live view: server-sent events (HTML, section 9.2), one stream for each open page.

A stream is a hint made of whole lists: whoever misses an event has missed nothing once the next one comes.
"""

import asyncio
from collections import Counter

from aiohttp import web

from pullprint.base.errors import NotSignedIn, TooMany
from pullprint.cloud import jobs, sessions
from pullprint.cloud.bus import jobs_topic, printers_topic
from pullprint.cloud.gate import CLOUD, Access, Cloud, access, token, user

HEARTBEAT = 5.0
"""Seconds between two signs of life; by them a page that was closed and a session that ran out are noticed."""
SETTLE = 0.05
"""Seconds in which changes are gathered: a release makes several within milliseconds."""
WRITE_TIME = 20.0
"""Seconds for a browser to take an event."""
STREAMS = 20
"""Open pages of one user."""

_OPEN = web.AppKey("streams", Counter[tuple[str, str]])


def add(app: web.Application) -> None:
    """Count the streams of this application."""
    app[_OPEN] = Counter()


@access(Access.USER)
async def events(request: web.Request) -> web.StreamResponse:
    """``jobs`` with a `JobList`, now and after each change; ``printers`` when what is known of those has changed;
    ``ended`` when the session is over."""
    caller, opened = user(request), request.app[_OPEN]
    owner = (caller.organisation, caller.user)
    if opened[owner] >= STREAMS:
        raise TooMany(seconds=int(HEARTBEAT))
    opened[owner] += 1
    try:
        return await _stream(request, request.app[CLOUD])
    finally:
        opened[owner] -= 1
        if not opened[owner]:
            del opened[owner]


async def _stream(request: web.Request, cloud: Cloud) -> web.StreamResponse:
    caller, value = user(request), token(request)
    # no-transform and X-Accel-Buffering: proxies that collect answers would hold the events back.
    headers = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers={**headers, "Content-Type": "text/event-stream"})
    version = -1
    printers = printers_topic(caller.organisation)
    with cloud.bus.listen(jobs_topic(*_owner(caller)), printers) as waiter:
        await response.prepare(request)
        while not (waiter.closed or request.transport is None or request.transport.is_closing()):
            try:
                signed_in = await cloud.store.read(sessions.find, value)
            except NotSignedIn:
                await _send(response, b"event: ended\ndata:\n\n")
                break
            if signed_in.stale:
                await cloud.store.note(sessions.touch, signed_in.token_hash)
            if printers in waiter.heard:
                await _send(response, b"event: printers\ndata:\n\n")
            waiter.heard.clear()
            if await cloud.store.read(jobs.version, *_owner(caller)) != version:
                listing = await cloud.store.read(jobs.listing, *_owner(caller))
                version = listing.version
                await _send(response, b"event: jobs\ndata: " + listing.model_dump_json().encode() + b"\n\n")
            else:
                await _send(response, b":\n\n")
            if await waiter.wait(HEARTBEAT):
                await cloud.clock.sleep(SETTLE)
    return response


def _owner(caller: sessions.SignedIn) -> tuple[str, str]:
    return caller.organisation, caller.user


async def _send(response: web.StreamResponse, event: bytes) -> None:
    try:
        async with asyncio.timeout(WRITE_TIME):
            await response.write(event)
    except TimeoutError as error:
        raise ConnectionResetError("the browser takes nothing") from error
