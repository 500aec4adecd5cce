"""A stand-in for pullprintd's local API: the routes of `wire.local`, whose jobs go the way that a test writes down."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from pullprint.base.errors import BadRequest, NotFound, PullprintError
from pullprint.model.facts import Facts
from pullprint.model.states import State
from pullprint.model.ticket import Ticket
from pullprint.wire.types import Message
from pullprint.wire.views import (
    FindingView,
    JobView,
    JoinRequest,
    LoginView,
    MeshView,
    PrinterView,
    ReleaseRequest,
    StatusView,
    StepView,
)

Way = list[tuple[State, str, str]]
"""What happens after a release: state, event, sentence."""

PRINTED: Way = [
    (State.PREPARED, "prepared", "Released for Lobby."),
    (State.COMMITTED, "committed", "Connecting to Lobby."),
    (State.SENDING, "sending", "Lobby is being sent the document."),
    (State.SENDING, "printing", "Lobby is printing."),
    (State.DONE, "printed", "Printed at Lobby."),
]
OUT_OF_PAPER: Way = [
    (State.PREPARED, "prepared", "Released for Lobby."),
    (State.HELD, "nothing-sent", "Lobby has no paper. The job is still held."),
]
REFUSED: Way = [(State.HELD, "refused", "Lobby does not take this format.")]
CUT_OFF: Way = [
    (State.COMMITTED, "committed", "Connecting to Lobby."),
    (State.SENDING, "sending", "Lobby is being sent the document."),
    (State.UNCERTAIN, "uncertain", "The line to Lobby broke."),
]


def job(number: int = 1, title: str = "report.pdf", **more: Any) -> JobView:
    """A held job; its id begins with *number* in hex."""
    values: dict[str, Any] = {
        "id": f"{number:08x}".ljust(32, "a"), "title": title, "owner": "ada@example.com", "submitter": "ada",
        "host": "desk", "queue": "pullprint", "node": "desk", "state": State.HELD,
        "sentence": "Release it at a printer.",
        "content_type": "application/pdf", "size": 12_345, "facts": Facts(pages=3, color_pages=1),
        "ticket": Ticket(copies=2, options=(("Duplex", "DuplexNoTumble"),)), "created": 1_700_000_000,
        "expires": 1_900_000_000,
    }  # fmt: skip
    return JobView(**(values | more))


LOBBY = PrinterView(id="p1", name="Lobby", place="ground floor")
STORED = StepView(at=1_700_000_000.25, host="desk", event="stored", text="Stored and sealed.")


@dataclass
class Standin:
    """The daemon's memory, for a test to fill and to read."""

    jobs: dict[str, JobView] = field(default_factory=dict)
    printers: list[PrinterView] = field(
        default_factory=lambda: [PrinterView(id="p1", name="Lobby", place="ground floor")]
    )
    findings: list[FindingView] = field(default_factory=list)
    status: StatusView = field(default_factory=lambda: StatusView(version="0.1.0", joined=False))
    mesh: MeshView | None = None
    way: Way = field(default_factory=lambda: PRINTED)
    refusal: PullprintError | None = None
    """What a change is answered with."""
    traces: dict[str, list[StepView]] = field(default_factory=dict)
    releases: list[tuple[str, ReleaseRequest]] = field(default_factory=list)
    joins: list[JoinRequest] = field(default_factory=list)
    login: LoginView | None = None
    """How the caller's login stands; a question for it parks until it has moved."""
    requests: list[str] = field(default_factory=list)
    raw: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """Answers everything in place of the routes."""
    pace: float = 0.02
    """Seconds between two steps of a way."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, *jobs: JobView) -> None:
        for view in jobs:
            self.jobs[view.id] = view
            self.traces[view.id] = [
                StepView(at=1_700_000_000.25, host="desk", event="stored", text="Stored and sealed.")
            ]

    def move(self, job_id: str, state: State, event: str, text: str) -> JobView:
        self.jobs[job_id] = self.jobs[job_id].model_copy(update={"state": state, "sentence": text})
        self.traces[job_id].append(StepView(at=1_700_000_001.5, host="desk", event=event, text=text))
        self._moved.set()
        self._moved = asyncio.Event()
        return self.jobs[job_id]

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/mesh", self._mesh),
                web.get("/v1/printers", self._printers),
                web.get("/v1/doctor", self._doctor),
                web.get("/v1/jobs", self._jobs),
                web.get("/v1/jobs/{id}", self._job),
                web.get("/v1/jobs/{id}/trace", self._trace),
                web.post("/v1/jobs/{id}/release", self._release),
                web.post("/v1/jobs/{id}/settle", self._settle),
                web.delete("/v1/jobs/{id}", self._delete),
                web.post("/v1/join", self._join),
                web.post("/v1/login", self._begin_login),
                web.get("/v1/login", self._login),
                web.delete("/v1/login", self._withdraw_login),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        if self.raw:
            return await self.raw(request)
        try:
            if request.method != "GET":
                if request.content_type != "application/json":
                    raise BadRequest(reason="not JSON")
                if self.refusal:
                    raise self.refusal
            return await handler(request)
        except PullprintError as error:
            return web.json_response({"code": error.code, "sentence": error.sentence}, status=error.http_status)

    async def _status(self, _: web.Request) -> web.Response:
        return _answer(self.status)

    async def _mesh(self, _: web.Request) -> web.Response:
        if self.mesh is None:
            raise NotFound(what="mesh")
        return _answer(self.mesh)

    async def _printers(self, _: web.Request) -> web.Response:
        return _answer(*self.printers, many=True)

    async def _doctor(self, _: web.Request) -> web.Response:
        return _answer(*self.findings, many=True)

    async def _jobs(self, _: web.Request) -> web.Response:
        return _answer(*self.jobs.values(), many=True)

    async def _job(self, request: web.Request) -> web.Response:
        return _answer(self._find(request))

    def _find(self, request: web.Request) -> JobView:
        found = [view for view in self.jobs.values() if view.id.startswith(request.match_info["id"])]
        if not found:
            raise NotFound(what="job")
        if len(found) > 1:
            raise BadRequest(reason="several of your jobs begin with that")
        return found[0]

    async def _trace(self, request: web.Request) -> web.Response:
        view, after = self._find(request), int(request.query.get("after", "-1"))
        moved = self._moved
        if len(self.traces[view.id]) <= after + 1 and (wait := int(request.query.get("wait", "0"))):
            try:
                async with asyncio.timeout(wait):
                    await moved.wait()
            except TimeoutError:
                pass
        return _answer(*self.traces[view.id][after + 1 :], many=True)

    async def _release(self, request: web.Request) -> web.Response:
        view = self._find(request)
        wanted = ReleaseRequest.model_validate_json(await request.read())
        self.releases.append((view.id, wanted))
        if wanted.printer not in {name for printer in self.printers for name in (printer.id, printer.name)}:
            raise NotFound(what="printer")
        loop = asyncio.get_running_loop()
        for n, step in enumerate(self.way, 1):
            loop.call_later(n * self.pace, self.move, view.id, *step)
        return _answer(view, status=202)

    async def _settle(self, request: web.Request) -> web.Response:
        return _answer(self.move(self._find(request).id, State.DONE, "came-out", "ada says that it came out."))

    async def _delete(self, request: web.Request) -> web.Response:
        return _answer(self.move(self._find(request).id, State.CANCELLED, "cancelled", "Deleted by ada."))

    async def _join(self, request: web.Request) -> web.Response:
        self.joins.append(JoinRequest.model_validate_json(await request.read()))
        self.status = StatusView(version="0.1.0", joined=True, name="desk", organisation="Example", site="Berlin",
                                 cloud=self.joins[-1].cloud, connected=True)  # fmt: skip
        return _answer(self.status)

    def answer_login(self, state: str, user: str = "") -> None:
        """Somebody has answered on the page."""
        assert self.login is not None
        self.login = self.login.model_copy(update={"state": state, "user": user})
        self._moved.set()
        self._moved = asyncio.Event()

    async def _begin_login(self, _: web.Request) -> web.Response:
        uri = "https://print.example.com/login"
        self.login = LoginView(user_code="7KQ2-M9XD", verification_uri=uri, expires_in=599, interval=3,
                               verification_uri_complete=f"{uri}?code=7KQ2-M9XD")  # fmt: skip
        return _answer(self.login, status=201)

    async def _login(self, request: web.Request) -> web.Response:
        assert self.login is not None
        if self.login.state == "pending":
            try:
                async with asyncio.timeout(int(request.query.get("wait", "0"))):
                    await self._moved.wait()
            except TimeoutError:
                pass
        return _answer(self.login)

    async def _withdraw_login(self, _: web.Request) -> web.Response:
        self.answer_login("expired")
        assert self.login is not None
        return _answer(self.login)


def _answer(*views: Message, many: bool = False, status: int = 200) -> web.Response:
    texts = [view.model_dump_json() for view in views]
    return web.json_response(text=f"[{','.join(texts)}]" if many else texts[0], status=status)


async def serve(app: web.Application, path: Path) -> web.AppRunner:
    """Listen on *path*; the caller cleans the runner up."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    return runner
