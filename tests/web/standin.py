"""A stand-in for the cloud: the page's files under its policy, and `wire.api` over jobs that a test moves."""

import asyncio
import mimetypes
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

import pullprint
from pullprint.base.errors import NotAllowed, NotFound, NotSignedIn, PullprintError
from pullprint.model.facts import Facts
from pullprint.model.states import State
from pullprint.model.ticket import Ticket
from pullprint.wire.api import JobList, Session, SignIn
from pullprint.wire.types import Message
from pullprint.wire.views import ClaimRequest, JobView, PrinterView, ReleaseRequest, StepView

FOLDER = Path(pullprint.__file__).parent / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
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
LOBBY = PrinterView(id="p1", name="Lobby", place="ground floor")
ATTIC = PrinterView(id="p2", name="Attic")


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
    printers: list[PrinterView] = field(default_factory=lambda: [LOBBY, ATTIC])
    way: Way = field(default_factory=lambda: PRINTED)
    pace: float = 0.05
    """Seconds between two steps of a way."""
    refusal: PullprintError | None = None
    """What every change is answered with."""
    broken: bool = False
    """Answer 502, as a proxy without a server behind it."""
    sessions: set[str] = field(default_factory=set)
    traces: dict[str, list[StepView]] = field(default_factory=dict)
    releases: list[tuple[str, ReleaseRequest]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    version: int = 1
    url: str = ""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, *jobs: JobView) -> None:
        for view in jobs:
            self.jobs[view.id] = view
            text = f"Stored and sealed on {view.host}."
            self.traces[view.id] = [StepView(at=view.created, host=view.host, event="stored", text=text)]
        self.wake()

    def move(self, job_id: str, state: State, sentence: str) -> JobView:
        self.jobs[job_id] = self.jobs[job_id].model_copy(update={"state": state, "sentence": sentence})
        self.traces[job_id].append(StepView(at=self.jobs[job_id].created + 60, host="desk", event=state, text=sentence))
        self.wake()
        return self.jobs[job_id]

    def wake(self) -> None:
        """The list is a new one."""
        self.version += 1
        self._moved.set()
        self._moved = asyncio.Event()

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.get("/", self._file),
                web.get("/static/{name}", self._file),
                web.post("/api/v1/session", self._sign_in),
                web.get("/api/v1/session", self._session),
                web.delete("/api/v1/session", self._sign_out),
                web.get("/api/v1/jobs", self._jobs),
                web.get("/api/v1/jobs/{id}/trace", self._trace),
                web.post("/api/v1/jobs/{id}/release", self._release),
                web.post("/api/v1/jobs/{id}/settle", self._settle),
                web.delete("/api/v1/jobs/{id}", self._delete),
                web.post("/api/v1/claim", self._claim),
                web.get("/api/v1/printers", self._printers),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path_qs}")
        api = request.path.startswith("/api/")
        if api and self.broken:
            return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")
        try:
            if api and request.method != "GET" and request.content_type != "application/json":
                raise NotAllowed(reason="a change is JSON")
            if api and not request.path.endswith("/session"):
                self._check(request)
            if api and request.method != "GET" and self.refusal:
                raise self.refusal
            return await handler(request)
        except PullprintError as error:
            return web.json_response({"code": error.code, "sentence": error.sentence}, status=error.http_status)

    def _check(self, request: web.Request) -> None:
        if request.cookies.get(COOKIE) not in self.sessions:
            raise NotSignedIn

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name")
        path = FOLDER / "static" / name if name else FOLDER / "index.html"
        kind = mimetypes.guess_type(path.name)[0] or "application/manifest+json"
        return web.Response(body=path.read_bytes(), content_type=kind, headers={"Content-Security-Policy": POLICY})

    async def _sign_in(self, request: web.Request) -> web.Response:
        wanted = SignIn.model_validate_json(await request.read())
        if wanted.password.get_secret_value() != PASSWORD:
            raise NotAllowed(reason="name or password is wrong")
        token = f"{wanted.name}-{len(self.requests)}"
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
        newest_first = sorted(self.jobs.values(), key=lambda view: -view.created)
        return _answer(JobList(version=self.version, jobs=tuple(newest_first)))

    async def _trace(self, request: web.Request) -> web.Response:
        texts = [step.model_dump_json() for step in self.traces[self._find(request).id]]
        return web.json_response(text=f"[{','.join(texts)}]")

    async def _release(self, request: web.Request) -> web.Response:
        view = self._find(request)
        self.releases.append((view.id, ReleaseRequest.model_validate_json(await request.read())))
        loop = asyncio.get_running_loop()
        for n, step in enumerate(self.way, 1):
            loop.call_later(n * self.pace, self.move, view.id, *step)
        return _answer(self.move(view.id, view.state, "On its way to Lobby."), status=202)

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
        return web.json_response(text=f"[{','.join(printer.model_dump_json() for printer in self.printers)}]")

    def _find(self, request: web.Request) -> JobView:
        try:
            return self.jobs[request.match_info["id"]]
        except KeyError:
            raise NotFound(what="job") from None


def _answer(view: Message, status: int = 200) -> web.Response:
    return web.json_response(text=view.model_dump_json(), status=status)


async def serve(standin: Standin, port: int = 0) -> web.AppRunner:
    """Listen on 127.0.0.1; the caller cleans the runner up."""
    runner = web.AppRunner(standin.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    standin.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    return runner
