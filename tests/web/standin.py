"""A stand-in for the cloud: the page as the cloud serves it, and `wire.api` over jobs that a test moves."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pullprint.base.errors import NotAllowed, NotFound, NotSignedIn, PullprintError, TooLarge
from pullprint.cloud import page
from pullprint.cloud.invitations import InvitationRefused
from pullprint.model.facts import Facts
from pullprint.model.states import ENDED, UNDER_WAY, State
from pullprint.model.ticket import Ticket
from pullprint.vault import parts
from pullprint.wire.api import (
    UPLOAD_PIECE,
    Acceptance,
    History,
    Invitation,
    InvitationToken,
    JobList,
    LoginAnswer,
    PendingLogin,
    Picture,
    PicturesRequest,
    Session,
    SessionView,
    SignIn,
    UploadOffer,
    UploadRequest,
)
from pullprint.wire.types import Message
from pullprint.wire.views import (
    CapabilitiesView,
    ClaimRequest,
    JobView,
    MeshView,
    PrinterView,
    ReleaseRequest,
    StepView,
)

# The real one is __Host-…, which a browser takes over https only.
COOKIE = "pullprint"
PASSWORD = "correct horse"
Way = list[tuple[State, str]]
PRINTED: Way = [
    (State.PREPARED, "Released for Lobby."),
    (State.SENDING, "Lobby is being sent the document."),
    (State.DONE, "Printed at Lobby."),
]
EVERYTHING = CapabilitiesView(
    color=True,
    sides=("one-sided", "two-sided-long-edge", "two-sided-short-edge"),
    media=("iso_a4_210x297mm", "iso_a3_297x420mm", "na_letter_8.5x11in", "custom_card_100x200mm"),
    page_ranges=True,
    copies=99,
)
LOBBY = PrinterView(id="p1", name="Lobby", place="ground floor", site="Office", code="7KQ2", ready=True, can=EVERYTHING)
ATTIC = PrinterView(id="p2", name="Attic", site="Office", code="M9XD")
GREY = PrinterView(
    id="p3", name="Basement", place="next to the bicycles", site="Annex", code="B4B4", ready=False,
    trouble="The printer is out of paper.", can=CapabilitiesView(color=False, sides=("one-sided",)),
)  # fmt: skip
LOGIN = PendingLogin(code="WDJB-MJHT", account="ada", host="reception", site="Office", expires=1_900_000_000)
HERE = SessionView(id="s1", kind="page", name="Chrome on Android", created=1, used=int(time.time()), current=True)
SHELL = SessionView(id="s2", kind="account", name="ada on reception", created=1, used=int(time.time()) - 7_300)
UPLOAD_LIMIT = 8_000_000
HISTORY_PAGE = 2
"""Ended jobs on one page of the history."""


def job(number: int = 1, title: str = "report.pdf", **more: Any) -> JobView:
    """A held job; the higher its number, the newer."""
    values: dict[str, Any] = {
        "id": f"{number:032x}", "title": title, "owner": "ada@example.com", "submitter": "ada", "host": "desk",
        "queue": "pullprint", "node": "desk", "state": State.HELD, "sentence": "Release it at a printer.",
        "content_type": "application/pdf", "size": 12_345, "facts": Facts(pages=3, color_pages=1),
        "ticket": Ticket(copies=2, options=(("Duplex", "DuplexNoTumble"),)), "created": 1_700_000_000 + number,
        "expires": 1_900_000_000,
    }  # fmt: skip
    return JobView(**(values | more))


@dataclass
class Standin:
    """The cloud's memory, for a test to fill and to read."""

    jobs: dict[str, JobView] = field(default_factory=dict)
    printers: list[PrinterView] = field(default_factory=lambda: [LOBBY, ATTIC, GREY])
    places: list[SessionView] = field(default_factory=lambda: [HERE, SHELL])
    pictures: dict[str, bytes] = field(default_factory=dict)
    """WebP by job."""
    answers: list[tuple[str, bool]] = field(default_factory=list)
    """To device logins."""
    uploaded: list[tuple[UploadRequest, bytes]] = field(default_factory=list)
    hold_uploads: asyncio.Event | None = None
    """Take uploads when it is set, as a node that is busy does."""
    streams: bool = True
    """Whether there are server-sent events."""
    way: Way = field(default_factory=lambda: PRINTED)
    pace: float = 0.05
    """Seconds between two steps of a way."""
    refusal: PullprintError | None = None
    """What every change is answered with."""
    once: bool = False
    """Refuse to release a job a second time, as the cloud does while an order is out."""
    broken: bool = False
    """Answer 502, as a proxy without a server behind it."""
    invitations: dict[str, str] = field(default_factory=dict)
    """The user's name by token."""
    chosen: list[str] = field(default_factory=list)
    """Passwords."""
    remembered: list[bool] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    traces: dict[str, list[StepView]] = field(default_factory=dict)
    releases: list[tuple[str, ReleaseRequest]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    version: int = 1
    url: str = ""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _offers: dict[str, tuple[UploadRequest, bytes]] = field(default_factory=dict)

    sites: list[MeshView] = field(default_factory=list)

    def add(self, *jobs: JobView) -> None:
        for view in jobs:
            self.jobs[view.id] = view
            text = f"Stored and sealed on {view.host}."
            self.traces[view.id] = [StepView(at=view.created, host=view.host, event="stored", text=text)]
        self.wake()

    def move(self, job_id: str, state: State, sentence: str, **more: Any) -> JobView:
        changes = {"state": state, "sentence": sentence} | more
        if state in ENDED:
            changes.setdefault("ended", int(time.time()))
        self.jobs[job_id] = self.jobs[job_id].model_copy(update=changes)
        self.traces[job_id].append(StepView(at=self.jobs[job_id].created + 60, host="desk", event=state, text=sentence))
        self.wake()
        return self.jobs[job_id]

    def wake(self) -> None:
        """The list is a new one."""
        self.version += 1
        self._moved.set()
        self._moved = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=UPLOAD_LIMIT * 2)
        page.add(app)
        app.add_routes(
            [
                web.post("/api/v1/session", self._sign_in),
                web.post("/api/v1/welcome", self._welcome),
                web.post("/api/v1/welcome/accept", self._accept),
                web.get("/api/v1/session", self._session),
                web.delete("/api/v1/session", self._sign_out),
                web.get("/api/v1/sessions", self._sessions),
                web.delete("/api/v1/sessions", self._sign_out_everywhere),
                web.delete("/api/v1/sessions/{id}", self._end_session),
                web.get("/api/v1/events", self._events),
                web.get("/api/v1/jobs", self._jobs),
                web.get("/api/v1/jobs/{id}/trace", self._trace),
                web.post("/api/v1/jobs/{id}/release", self._release),
                web.post("/api/v1/jobs/{id}/settle", self._settle),
                web.delete("/api/v1/jobs/{id}", self._delete),
                web.get("/api/v1/history", self._history),
                web.post("/api/v1/claim", self._claim),
                web.post("/api/v1/pictures", self._pictures),
                web.post("/api/v1/uploads", self._offer),
                web.put("/api/v1/uploads/{id}", self._take),
                web.get("/api/v1/printers", self._printers),
                web.get("/api/v1/mesh", self._mesh),
                web.get("/api/v1/printers/{id}", self._printer),
                web.get("/api/v1/logins/{code}", self._login),
                web.post("/api/v1/logins/{code}", self._answer_login),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        api = request.path.startswith("/api/")
        if api and self.broken:
            return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")
        try:
            if api and request.method not in ("GET", "PUT") and request.content_type != "application/json":
                raise NotAllowed(reason="a change is JSON")
            if api and not request.path.endswith("/session") and "/welcome" not in request.path:
                self._check(request)
            if api and request.method != "GET" and self.refusal:
                raise self.refusal
            return await handler(request)
        except PullprintError as error:
            return web.json_response({"code": error.code, "sentence": error.sentence}, status=error.http_status)

    def _check(self, request: web.Request) -> None:
        if request.cookies.get(COOKIE) not in self.sessions:
            raise NotSignedIn

    async def _sign_in(self, request: web.Request) -> web.Response:
        wanted = SignIn.model_validate_json(await request.read())
        if wanted.password.get_secret_value() != PASSWORD:
            raise NotAllowed(reason="name or password is wrong")
        return self._begin(wanted.name, remember=wanted.remember)

    async def _welcome(self, request: web.Request) -> web.Response:
        token = InvitationToken.model_validate_json(await request.read()).token.get_secret_value()
        return _answer(Invitation(user=self._invited(token), organisation="Example Ltd"))

    async def _accept(self, request: web.Request) -> web.Response:
        wanted = Acceptance.model_validate_json(await request.read())
        name = self._invited(wanted.token.get_secret_value())
        self.invitations.clear()
        self.chosen.append(wanted.password.get_secret_value())
        return self._begin(name, remember=wanted.remember)

    def _invited(self, token: str) -> str:
        try:
            return self.invitations[token]
        except KeyError:
            raise InvitationRefused from None

    def _begin(self, name: str, *, remember: bool) -> web.Response:
        self.remembered.append(remember)
        token = f"{name}-{len(self.requests)}"
        self.sessions.add(token)
        response = _answer(self._who(token), status=201)
        response.set_cookie(COOKIE, token, httponly=True, samesite="Strict")
        return response

    def _who(self, token: str) -> Session:
        return Session(user=token.rpartition("-")[0], organisation="Example Ltd", expires=1_900_000_000)

    async def _session(self, request: web.Request) -> web.Response:
        self._check(request)
        return _answer(self._who(request.cookies[COOKIE]))

    async def _sign_out(self, request: web.Request) -> web.Response:
        self._check(request)
        self.sessions.discard(request.cookies[COOKIE])
        return web.Response(status=204)

    async def _jobs(self, request: web.Request) -> web.Response:
        moved = self._moved
        if int(request.query.get("since", "-1")) == self.version:
            try:
                async with asyncio.timeout(float(request.query["wait"])):
                    await moved.wait()
            except TimeoutError:
                pass
            self._check(request)
        return _answer(JobList(version=self.version, jobs=self._newest_first()))

    def _newest_first(self) -> tuple[JobView, ...]:
        return tuple(sorted(self.jobs.values(), key=lambda view: -view.created))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if not self.streams:
            raise NotFound(what="address")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            await self._stream(request, response)
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse) -> None:
        printers = self.printers
        while not self.broken:
            moved = self._moved
            if self.printers != printers:
                printers = self.printers
                await response.write(b"event: printers\ndata:\n\n")
            if request.cookies.get(COOKIE) not in self.sessions:
                await response.write(b"event: ended\ndata:\n\n")
                break
            listing = JobList(version=self.version, jobs=self._newest_first())
            await response.write(b": a comment\n\nevent: jobs\ndata: " + listing.model_dump_json().encode() + b"\n\n")
            await moved.wait()

    async def _history(self, request: web.Request) -> web.Response:
        ended = [view for view in self._newest_first() if view.ended]
        start = int(request.query.get("before") or 0)
        following = start + HISTORY_PAGE
        more = str(following) if following < len(ended) else ""
        return _answer(History(jobs=tuple(ended[start:following]), next=more))

    async def _mesh(self, _: web.Request) -> web.Response:
        return _answers(self.sites)

    async def _sessions(self, _: web.Request) -> web.Response:
        return _answers(self.places)

    async def _end_session(self, request: web.Request) -> web.Response:
        self.places = [place for place in self.places if place.id != request.match_info["id"]]
        return web.Response(status=204)

    async def _sign_out_everywhere(self, _: web.Request) -> web.Response:
        self.sessions.clear()
        self.wake()
        return web.Response(status=204)

    async def _pictures(self, request: web.Request) -> web.Response:
        wanted = PicturesRequest.model_validate_json(await request.read())
        return _answers([self._picture(job, wanted.public) for job in wanted.jobs if job in self.pictures])

    def _picture(self, job: str, public: bytes) -> Picture:
        key, nonce = secrets.token_bytes(32), secrets.token_bytes(12)
        sealed = nonce + AESGCM(key).encrypt(nonce, self.pictures[job], job.encode())
        return Picture(job=job, picture=sealed, key=parts.seal_picture_key(key, public, job=job))

    async def _offer(self, request: web.Request) -> web.Response:
        wanted = UploadRequest.model_validate_json(await request.read())
        if wanted.size > UPLOAD_LIMIT:
            raise TooLarge(what="This document", limit="8 MB")
        private, public = parts.new_key()
        name = f"u{len(self._offers)}"
        self._offers[name] = wanted, private
        return _answer(UploadOffer(id=name, public=public, limit=UPLOAD_LIMIT), status=201)

    async def _take(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        wanted, private = self._offers[name]
        document = opened_upload(await request.read(), private, name)
        if self.hold_uploads:
            await self.hold_uploads.wait()
            if request.transport is None or request.transport.is_closing():
                raise ConnectionResetError
        self.uploaded.append((wanted, document))
        view = job(50 + len(self.uploaded), wanted.title, created=int(time.time()))
        self.add(view)
        return _answer(view, status=201)

    async def _login(self, request: web.Request) -> web.Response:
        if request.match_info["code"].upper() != LOGIN.code:
            raise NotFound(what="code")
        return _answer(LOGIN)

    async def _answer_login(self, request: web.Request) -> web.Response:
        answer = LoginAnswer.model_validate_json(await request.read())
        self.answers.append((request.match_info["code"], answer.allow))
        return web.Response(status=204)

    async def _printer(self, request: web.Request) -> web.Response:
        for printer in self.printers:
            if request.match_info["id"] in (printer.id, printer.code):
                return _answer(printer)
        raise NotFound(what="printer")

    async def _trace(self, request: web.Request) -> web.Response:
        return _answers(self.traces[self._find(request).id])

    async def _release(self, request: web.Request) -> web.Response:
        view = self._find(request)
        if view.state in UNDER_WAY or (self.once and self.releases):
            raise NotAllowed(reason="it is being printed already")
        self.releases.append((view.id, ReleaseRequest.model_validate_json(await request.read())))
        loop = asyncio.get_running_loop()
        for n, step in enumerate(self.way, 1):
            loop.call_later(n * self.pace, self.move, view.id, *step)
        return _answer(self.move(view.id, State(view.state), "On its way to Lobby."), status=202)

    async def _settle(self, request: web.Request) -> web.Response:
        return _answer(self.move(self._find(request).id, State.DONE, "You said that it came out."))

    async def _delete(self, request: web.Request) -> web.Response:
        return _answer(self.move(self._find(request).id, State.CANCELLED, "Deleted by you."), status=202)

    async def _claim(self, request: web.Request) -> web.Response:
        if ClaimRequest.model_validate_json(await request.read()).code.upper() != "7KQ2-M9XD":
            raise NotFound(what="code")
        self.add(job(99, "claimed.pdf"))
        return _answer(job(99, "claimed.pdf"))

    async def _printers(self, _: web.Request) -> web.Response:
        return _answers(self.printers)

    def _find(self, request: web.Request) -> JobView:
        try:
            return self.jobs[request.match_info["id"]]
        except KeyError:
            raise NotFound(what="job") from None


def _answer(view: Message, status: int = 200) -> web.Response:
    return web.json_response(text=view.model_dump_json(), status=status)


def _answers(views: Sequence[Message]) -> web.Response:
    return web.json_response([json.loads(view.model_dump_json()) for view in views])


def opened_upload(sealed: bytes, private: bytes, upload: str) -> bytes:
    """What a browser sealed, as a node opens it. Raises whatever is wrong with it."""
    key = AESGCM(parts.open_upload_key(sealed[: parts.SLOT_SIZE], private, upload=upload))
    rest, whole = sealed[parts.SLOT_SIZE :], UPLOAD_PIECE + 16
    pieces = [rest[at : at + whole] for at in range(0, len(rest), whole)]
    # A whole piece is never the last one.
    assert len(pieces[-1]) < whole
    flags = [0] * (len(pieces) - 1) + [1]
    return b"".join(
        key.decrypt(bytes(7) + n.to_bytes(4, "big") + bytes([flag]), piece, None)
        for n, (piece, flag) in enumerate(zip(pieces, flags, strict=True))
    )


async def serve(standin: Standin, port: int = 0) -> web.AppRunner:
    """Listen on 127.0.0.1; the caller cleans the runner up."""
    runner = web.AppRunner(standin.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    standin.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    return runner
