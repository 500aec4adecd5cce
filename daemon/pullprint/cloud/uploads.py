"""Uploads: a browser's document on its way to the node that will hold it, sealed to that node.

The bytes pass from one request to another through a few pieces of memory; a sender waits while its receiver is slow,
and nothing is written down. When either request ends early, both do. Offers live in this process only: the PUT must
reach the instance that made the offer.
"""

import asyncio
import contextlib
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import StreamReader, web
from sqlalchemy import select, update

from pullprint.base.bell import Bell
from pullprint.base.errors import BadRequest, NotFound, PullprintError, TooLarge, TooMany
from pullprint.base.text import printable
from pullprint.cloud import inbox, jobs
from pullprint.cloud.gate import CLOUD, Access, access, answer, body, node, user
from pullprint.cloud.orders import AWAY_AFTER
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import account
from pullprint.cloud.tables import job as job_table
from pullprint.cloud.tables import node as node_table
from pullprint.wire.api import UploadOffer, UploadRequest, sealed_length
from pullprint.wire.node import UploadItem, UploadResult
from pullprint.wire.views import JobView

OFFER_TIME = 300.0
"""Seconds in which an offered upload must begin."""
OFFERS = 8
"""Open offers of one user; the oldest gives way."""
UNDER_WAY_USER, UNDER_WAY_ORGANISATION = 2, 8
UNDER_WAY = 32
"""Uploads of one user, of one organisation, and of all, at the same time."""
PIECE = 1 << 18
ROOM = 8
"""Bytes of a piece, and pieces that wait between the two requests."""
FETCH_TIME = 15.0
"""Seconds for the node to come for it."""
IDLE = 30.0
"""Seconds in which the browser sends something and the node takes something."""
TOTAL = 3_600.0
"""Seconds for all of it."""
RESULT_TIME = 480.0
"""Seconds for the node to make a held job of it, once it has everything: three office documents may be before it."""
GRACE = 1.0
"""Seconds in which a node that hangs up says why."""
LOOK_EVERY = 0.5
"""Seconds between two looks whether the one who waits for bytes is still there."""
DRAIN = 5.0
"""Seconds for which the rest of a refused document is read, since browsers send all of it before they look at the
answer."""

T = TypeVar("T")


class NoNodeAwake(PullprintError):
    """No computer of your organisation that could take the document is awake. Nothing was stored: switch one on, then
    upload it again."""

    code = "no-node-awake"
    http_status = 409


class NodeSilent(PullprintError):
    """The computer that should take the document does not answer. Nothing was stored; upload it again in a moment."""

    code = "node-silent"
    http_status = 504


class UploadBroken(PullprintError):
    """The upload was interrupted: {reason}. Look at your jobs before you upload it again."""

    code = "upload-broken"
    http_status = 502


class UploadRefused(PullprintError):
    """The document was refused."""

    http_status = 422

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__()
        self.code = printable(code, 64) or "upload-refused"
        self._told = printable(sentence, 1_000)

    @property
    def sentence(self) -> str:
        """What the node says of it."""
        return getattr(self, "_told", "") or super().sentence


@dataclass(eq=False)
class Upload:
    """One document: offered, then under way, then gone."""

    id: str
    organisation: str
    user: str
    node: str
    key: str
    title: str
    content_type: str
    size: int
    expires: float
    """By the clock's `monotonic`."""
    begun: bool = False
    fetched: bool = False
    ended: bool = field(default=False, init=False)
    """Every byte is in `_pieces` or further."""
    result: asyncio.Future[UploadResult] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    _pieces: deque[bytes] = field(default_factory=deque)
    _bell: Bell = field(default_factory=Bell)

    @property
    def owner(self) -> tuple[str, str]:
        """Whose it is."""
        return self.organisation, self.user

    @property
    def over(self) -> bool:
        """Nobody wants further bytes."""
        return self.result.done()

    def settle(self, result: UploadResult | PullprintError) -> None:
        """What became of it; the first word counts."""
        if not self.result.done():
            if isinstance(result, UploadResult):
                self.result.set_result(result)
            else:
                self.result.set_exception(result)
                self.result.exception()  # noted: nobody may be left to hear of it
        self._pieces.clear()
        self._bell.ring()

    async def put(self, piece: bytes) -> None:
        """Hand *piece* on; b"" is the end. Waits while there is no room. Nothing happens once it is over."""
        while True:
            ticket = self._bell.ticket
            if self.over or len(self._pieces) < ROOM:
                break
            await self._bell.wait(ticket)
        if not self.over:
            self.ended = not piece
            self._pieces.append(piece)
            self._bell.ring()

    async def get(self, seconds: float) -> bytes | None:
        """The next piece, b"" at the end; None when there was none for so many *seconds*, or it is over."""
        ticket = self._bell.ticket
        if not self._pieces and not self.over:
            await self._bell.wait(ticket, seconds)
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self._bell.ring()
        return piece

    async def taken(self) -> None:
        """Wait until the node has come for it."""
        while not self.fetched and not self.over:
            ticket = self._bell.ticket
            await self._bell.wait(ticket)

    def fetch(self) -> None:
        """The node comes for it."""
        self.fetched = True
        self._bell.ring()


class Uploads:
    """All that are offered or under way in this process."""

    def __init__(self) -> None:
        self._all: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._all)

    def offer(self, upload: Upload, now: float) -> None:
        """Keep an offer."""
        for old in [old for old in self._all.values() if not old.begun and old.expires <= now]:
            self.forget(old)
        mine = [old for old in self._all.values() if old.owner == upload.owner and not old.begun]
        for old in mine[: max(0, len(mine) + 1 - OFFERS)]:
            self.forget(old)
        self._all[upload.id] = upload

    def begin(self, upload_id: str, owner: tuple[str, str], now: float) -> Upload:
        """The user sends what was offered; once. Raises NotFound, TooMany."""
        upload = self._all.get(upload_id)
        if upload is None or upload.owner != owner or upload.begun or upload.expires <= now:
            raise NotFound(what="offered upload")
        under_way = Counter(other.owner for other in self._all.values() if other.begun)
        organisation = sum(count for (name, _), count in under_way.items() if name == owner[0])
        if (
            under_way[owner] >= UNDER_WAY_USER
            or organisation >= UNDER_WAY_ORGANISATION
            or under_way.total() >= UNDER_WAY
        ):
            raise TooMany(seconds=10)
        upload.begun = True
        return upload

    def at(self, upload_id: str, node_id: str) -> Upload:
        """An upload under way to this node. Raises NotFound."""
        upload = self._all.get(upload_id)
        if upload is None or upload.node != node_id or not upload.begun:
            raise NotFound(what="upload under way")
        return upload

    def forget(self, upload: Upload) -> None:
        """It is over."""
        self._all.pop(upload.id, None)


_UPLOADS = web.AppKey("uploads", Uploads)


def add(app: web.Application) -> None:
    """A place for this application's uploads."""
    app[_UPLOADS] = Uploads()


@access(Access.USER)
async def offer(request: web.Request) -> web.StreamResponse:
    """Which node would take the document, and the key to seal it to."""
    cloud, caller, wanted = request.app[CLOUD], user(request), body(request, UploadRequest)
    limit = cloud.settings.upload_limit_mib << 20
    if wanted.size > limit:
        raise TooLarge(what="The document", limit=f"{cloud.settings.upload_limit_mib} MiB")
    if not wanted.size:
        raise BadRequest(reason="the document is empty")
    row = await cloud.store.read(_node_for, caller.organisation, caller.user, wanted.site)
    now = cloud.clock.monotonic()
    upload = Upload(
        secrets.token_hex(16), caller.organisation, caller.user, row.id, row.key_id, printable(wanted.title, 255),
        printable(wanted.content_type, 255), wanted.size, now + OFFER_TIME,
    )  # fmt: skip
    request.app[_UPLOADS].offer(upload, now)
    return answer(UploadOffer(id=upload.id, public=bytes(row.key_public), limit=limit), 201)


@access(Access.USER, streams="application/octet-stream")
async def receive(request: web.Request) -> web.StreamResponse:
    """The sealed document itself; answered when a node holds it."""
    cloud, caller, uploads = request.app[CLOUD], user(request), request.app[_UPLOADS]
    upload = uploads.begin(request.match_info["id"], (caller.organisation, caller.user), cloud.clock.monotonic())
    try:
        if request.content_length != sealed_length(upload.size):
            raise BadRequest(reason="its length is not that of the document that was announced")
        item = UploadItem(
            seq=0, upload=upload.id, key=upload.key, owner=upload.user, title=upload.title or "Untitled",
            content_type=upload.content_type or "application/octet-stream", size=upload.size,
        )  # fmt: skip
        await cloud.store.note(_tell, upload.node, item)
        result = await _pass(request.content, upload)
        if not result.job:
            raise UploadRefused(result.code, result.sentence)
        return answer(await cloud.store.run(_accept, upload, result.job), 201)
    finally:
        upload.settle(UploadBroken(reason="the browser went away"))
        uploads.forget(upload)


@access(Access.NODE)
async def hand_over(request: web.Request) -> web.StreamResponse:
    """The node comes for the document, once."""
    upload = request.app[_UPLOADS].at(request.match_info["id"], node(request).id)
    if upload.fetched:
        raise NotFound(what="upload under way")
    upload.fetch()
    response = web.StreamResponse(headers={"Cache-Control": "no-store"})
    response.content_type = "application/octet-stream"
    response.content_length = sealed_length(upload.size)
    try:
        await response.prepare(request)
        while (piece := await _next(request, upload)) != b"":
            await _within(IDLE, response.write(piece), NodeSilent)
        await response.write_eof()
    except PullprintError as error:
        upload.settle(error)
        if request.transport is not None:
            request.transport.abort()  # the answer has begun: no other way to say that it is not all
    except ConnectionError:
        await asyncio.wait({upload.result}, timeout=GRACE)
        upload.settle(UploadBroken(reason="its receiver went away"))
    return response


@access(Access.NODE)
async def conclude(request: web.Request) -> web.StreamResponse:
    """What the node made of it."""
    request.app[_UPLOADS].at(request.match_info["id"], node(request).id).settle(body(request, UploadResult))
    return web.Response(status=204, headers={"Cache-Control": "no-store"})


async def _pass(content: StreamReader, upload: Upload) -> UploadResult:
    """Pass everything on; what the node made of it. Raises what went wrong, at once on either side."""
    sending = asyncio.create_task(_send(content, upload), name="upload")
    either: tuple[asyncio.Future[Any], ...] = (sending, upload.result)
    try:
        await asyncio.wait(either, timeout=TOTAL, return_when=asyncio.FIRST_COMPLETED)
        if not upload.over:
            if not sending.done():
                raise UploadBroken(reason="it took too long")
            sending.result()
            await asyncio.wait({upload.result}, timeout=RESULT_TIME)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    if not upload.over:
        raise UploadBroken(reason="the computer that took the document does not say what became of it")
    if upload.result.exception() is None and not upload.ended:
        with contextlib.suppress(TimeoutError, ConnectionError, web.RequestPayloadError):
            await _drain(content)
    return upload.result.result()


async def _send(content: StreamReader, upload: Upload) -> None:
    """Raises UploadBroken, NodeSilent."""
    try:
        first = True
        while not upload.ended and not upload.over:
            piece = await _within(IDLE, content.read(PIECE), UploadBroken, reason="the browser stopped sending")
            await _within(IDLE, upload.put(piece), NodeSilent)
            if first:
                await _within(FETCH_TIME, upload.taken(), NodeSilent)
                first = False
    except (web.RequestPayloadError, ConnectionError) as error:
        raise UploadBroken(reason="the browser went away") from error


async def _drain(content: StreamReader) -> None:
    async with asyncio.timeout(DRAIN):
        while await content.read(PIECE):
            pass


async def _next(request: web.Request, upload: Upload) -> bytes:
    """The next piece. Raises UploadBroken when there will be none, ConnectionError when the node has gone."""
    while (piece := await upload.get(LOOK_EVERY)) is None:
        if upload.over:
            raise UploadBroken(reason="its sender went away")
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError
    return piece


async def _within(seconds: float, what: Awaitable[T], otherwise: Callable[..., PullprintError], **fields: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await what
    except TimeoutError as error:
        raise otherwise(**fields) from error


def _node_for(t: Transaction, organisation_id: str, user: str, site: str) -> AnyRow:
    """A node that is awake, best at *site*, and that may see the document: one that the organisation manages, or that
    has an account of the *user*. Raises NoNodeAwake."""
    own = select(account.c.node).where(
        account.c.node == node_table.c.id, account.c.organisation == organisation_id, account.c.user == user
    )
    row = t.one(
        select(node_table.c.id, node_table.c.key_id, node_table.c.key_public)
        .where(node_table.c.organisation == organisation_id, node_table.c.revoked.is_(None))
        .where(node_table.c.managed | own.exists())
        .where(node_table.c.seen >= t.now - AWAY_AFTER, node_table.c.key_expires > t.now)
        .order_by((node_table.c.site == site).desc(), node_table.c.managed.desc(), node_table.c.seen.desc())
        .limit(1)
    )
    if row is None:
        raise NoNodeAwake
    return row


def _tell(t: Transaction, node_id: str, item: UploadItem) -> None:
    inbox.put(t, node_id, item, expires=t.now + FETCH_TIME)


def _accept(t: Transaction, upload: Upload, job: str) -> JobView:
    """The user's new job. Raises NotFound."""
    # A host that is not managed cannot say whose a job is. This one's owner is known here.
    unclaimed = t.run(
        update(job_table)
        .where(job_table.c.organisation == upload.organisation, job_table.c.id == job)
        .where(job_table.c.node == upload.node, job_table.c.owner == "", job_table.c.ended.is_(None))
        .values(owner=upload.user, claim_hash=None)
        .returning(job_table.c.id)
    ).first()
    if unclaimed:
        jobs.changed(t, upload.organisation, upload.user)
    return jobs.view(t, upload.organisation, upload.user, job)
