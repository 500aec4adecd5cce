"""The local API on a Unix socket, for the ``pullprint`` command (`wire.local`). The kernel says who calls."""

import asyncio
import os
import pwd
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from aiohttp import web
from pydantic import ValidationError

from pullprint.base.errors import BadRequest, NotAllowed, PullprintError
from pullprint.base.platform import peer_uid
from pullprint.model.placement import Role
from pullprint.model.states import ENDED, Event, State, WrongState
from pullprint.node import metrics
from pullprint.node.channel import Channel
from pullprint.node.holder import Holder
from pullprint.node.logins import Logins
from pullprint.node.overview import Copies, Overview
from pullprint.node.site import Site
from pullprint.node.sleep import Sleeper
from pullprint.vault.index import Index
from pullprint.vault.record import Record, Step
from pullprint.wire.local import BODY_LIMIT, WAIT_LIMIT
from pullprint.wire.node import Ask, Failure
from pullprint.wire.types import Message
from pullprint.wire.views import (
    FindingView,
    JobView,
    JoinRequest,
    LoginRequest,
    PrinterView,
    ReleaseRequest,
    StatusView,
    StepView,
)

ENDED_SHOWN = 86_400
"""Seconds for which ended jobs are still listed."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=Message)


class Control(Protocol):
    """What the daemon as a whole does on request."""

    @property
    def sleeper(self) -> Sleeper: ...
    async def status(self) -> StatusView: ...
    async def doctor(self) -> list[FindingView]: ...
    async def join(self, request: JoinRequest) -> None: ...
    def channel(self) -> Channel: ...
    def logins(self) -> Logins: ...


class NotYours(NotAllowed):
    """Only root and the daemon's own account may do that. Try again with sudo."""

    code = "not-yours"


class Unclaimed(PullprintError):
    """Nobody owns this job yet, so it cannot be released. Claim it on the web page with the code {code}; it stays
    held."""

    code = "unclaimed"
    http_status = 409


class Caller:
    """The process at the other end."""

    def __init__(self, uid: int, account: str, owner: str) -> None:
        self.uid = uid
        self.account = account
        self._owner = owner

    @property
    def trusted(self) -> bool:
        """Root, or the daemon's own account."""
        return self.uid in (0, os.geteuid())

    def owns(self, record: Record) -> bool:
        """Whether the job belongs to this account's user, or to nobody and came from this account on this host."""
        if record.owner:
            return record.owner == self._owner
        return not record.host and record.submitter == self.account

    def sees(self, record: Record) -> bool:
        """Whether this caller may look at, or delete, the job."""
        return self.trusted or self.owns(record)


class LocalApi:
    """The routes of `wire.local`."""

    def __init__(
        self, control: Control, holder: Holder, site: Site, name: str, overview: Overview | None = None,
        counts: metrics.Counts | None = None,
    ) -> None:  # fmt: skip
        """Without an *overview* this node is alone."""
        self._control = control
        self._overview = overview or Overview(holder, site, name, lambda: None, Role.NORMAL, lambda: 0)
        self._counts = counts or metrics.Counts()
        self._holder = holder
        self._site = site
        self._name = name

    def app(self) -> web.Application:
        """The aiohttp application; every route goes through `_guard`."""
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_guard])
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/printers", self._printers),
                web.get("/v1/mesh", self._mesh),
                web.get("/v1/doctor", self._doctor),
                web.post("/v1/join", self._join),
                web.post("/v1/sleep", self._sleep),
                web.post("/v1/wake", self._wake),
                web.post("/v1/login", self._begin_login),
                web.get("/v1/login", self._login),
                web.delete("/v1/login", self._withdraw_login),
                web.get("/v1/jobs", self._jobs),
                web.get("/v1/jobs/{id}", self._job),
                web.get("/v1/jobs/{id}/trace", self._trace),
                web.post("/v1/jobs/{id}/release", self._release),
                web.post("/v1/jobs/{id}/settle", self._settle),
                web.delete("/v1/jobs/{id}", self._delete),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    async def _status(self, request: web.Request) -> web.Response:
        return _answer(await self._control.status())

    async def _mesh(self, request: web.Request) -> web.Response:
        jobs = "jobs" in request.query
        if jobs and not (await self._caller(request)).trusted:
            raise NotYours
        return _answer(await self._overview.mesh(jobs=jobs))

    async def _metrics(self, request: web.Request) -> web.Response:
        known, awake = self._overview.peers()
        moment = metrics.Moment(
            census=await self._overview.census(),
            peers=known,
            awake=awake,
            news=sum((await self._holder.read(Index.news_waiting)).values()),
            unreported=await self._holder.read(Index.unreported),
        )
        text = await asyncio.to_thread(metrics.exposition, moment, self._counts)
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _doctor(self, request: web.Request) -> web.Response:
        return _answer(*await self._control.doctor(), many=True)

    async def _printers(self, request: web.Request) -> web.Response:
        printers = self._site.config.printers
        return _answer(*(PrinterView(id=p.id, name=p.name, place=p.place) for p in printers), many=True)

    async def _join(self, request: web.Request) -> web.Response:
        caller = await self._caller(request)
        if not caller.trusted:
            raise NotYours
        await self._control.join(await _body(request, JoinRequest))
        return _answer(await self._control.status())

    async def _sleep(self, request: web.Request) -> web.Response:
        if not (await self._caller(request)).trusted:
            raise NotYours
        return _answer(await self._control.sleeper.sleep())

    async def _wake(self, request: web.Request) -> web.Response:
        if not (await self._caller(request)).trusted:
            raise NotYours
        return _answer(await self._control.sleeper.wake())

    async def _begin_login(self, request: web.Request) -> web.Response:
        caller = await self._caller(request)
        await _body(request, LoginRequest)
        return _answer(await self._control.logins().begin(caller.account), status=201)

    async def _login(self, request: web.Request) -> web.Response:
        caller = await self._caller(request)
        wait = min(_number(request, "wait", 0), WAIT_LIMIT)
        return _answer(await self._control.logins().look(caller.account, wait))

    async def _withdraw_login(self, request: web.Request) -> web.Response:
        caller = await self._caller(request)
        return _answer(await self._control.logins().withdraw(caller.account))

    async def _jobs(self, request: web.Request) -> web.Response:
        caller = await self._caller(request)
        everything = "all" in request.query
        if everything and not caller.trusted:
            raise NotYours
        shown_since = self._holder.now() - ENDED_SHOWN
        records = await self._holder.read(lambda index: index.jobs(ended_since=shown_since))
        return _answer(*(self._view(r) for r in records if everything or caller.owns(r)), many=True)

    async def _job(self, request: web.Request) -> web.Response:
        return _answer(self._view(await self._find(request, Caller.sees)))

    async def _trace(self, request: web.Request) -> web.Response:
        record = await self._find(request, Caller.sees)
        after, wait = _number(request, "after", -1), min(_number(request, "wait", 0), WAIT_LIMIT)
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            ticket = self._holder.changes.ticket
            steps = await self._holder.read(Index.trace, record.id, int(after))
            left = deadline - asyncio.get_running_loop().time()
            if steps or left <= 0:
                break
            await self._holder.changes.wait(ticket, left)
        views = (
            StepView(at=s.at, host=self._name, event=s.step.event, text=s.step.text, detail=s.step.detail)
            for s in steps
        )
        return _answer(*views, many=True)

    async def _release(self, request: web.Request) -> web.Response:
        record = await self._find(request, Caller.owns)
        wanted = await _body(request, ReleaseRequest)
        if not record.owner and not record.direct_printer:
            raise Unclaimed(code=record.claim_code or "that was shown when it was printed")
        if record.state is State.UNCERTAIN and not wanted.again:
            raise WrongState(state=record.state.value)
        ask = Ask(
            job=record.id,
            printer=self._site.printer(wanted.printer).id,
            changes=wanted.changes,
            forces=record.doubtful if wanted.again else (),
            by=record.owner or record.submitter,
        )
        channel = self._control.channel()
        channel.take_order(*await channel.order(record, ask))
        return _answer(self._view(await self._holder.read(Index.get, record.id)), status=202)

    async def _settle(self, request: web.Request) -> web.Response:
        record = await self._find(request, Caller.owns)
        step = Step("came-out", f"{record.owner or record.submitter} says that it came out.")
        return _answer(self._view(await self._holder.end(record.id, Event.CAME_OUT, step)))

    async def _delete(self, request: web.Request) -> web.Response:
        record = await self._find(request, Caller.sees)
        caller = await self._caller(request)
        step = Step("cancelled", f"Deleted by {caller.account} on {self._name}.", {"by": caller.account})
        return _answer(self._view(await self._holder.end(record.id, Event.CANCEL, step)))

    async def _find(self, request: web.Request, may: Callable[[Caller, Record], bool]) -> Record:
        caller = await self._caller(request)
        return await self._holder.read(Index.find, request.match_info["id"], lambda record: may(caller, record))

    async def _caller(self, request: web.Request) -> Caller:
        transport = request.transport
        sock = transport.get_extra_info("socket") if transport else None
        if sock is None:
            raise NotYours
        uid = peer_uid(sock)
        try:
            # May ask a directory server.
            account = (await asyncio.to_thread(pwd.getpwuid, uid)).pw_name
        except KeyError:
            account = ""
        return Caller(uid, account, self._site.user_of(account) if self._site.joined else "")

    def _view(self, record: Record) -> JobView:
        copies = Copies((), 0) if record.state in ENDED else self._overview.copies(record)
        return JobView(
            id=record.id, title=record.title, owner=record.owner, submitter=record.submitter,
            host=record.host or self._name, queue=record.queue, node=self._name, state=record.state,
            sentence=record.sentence, content_type=record.content_type, size=record.size, ticket=record.ticket,
            facts=record.facts, created=record.created, expires=record.expires, direct_printer=record.direct_printer,
            claim_code=record.claim_code, doubtful=record.doubtful,
            copies=len(copies.names), awake=copies.awake, holders=copies.names,
        )  # fmt: skip


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Failures as `Failure`; nothing else of an exception leaves the daemon."""
    try:
        return await handler(request)
    except PullprintError as error:
        failure = Failure(code=error.code, sentence=error.sentence)
        return web.json_response(text=failure.model_dump_json(), status=error.http_status)


async def _body(request: web.Request, kind: type[Body]) -> Body:
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        fields = ", ".join(sorted({str(e["loc"][0]) for e in error.errors() if e["loc"]})) or "the body"
        raise BadRequest(reason=f"{fields} is not as expected") from error


def _number(request: web.Request, name: str, default: int) -> float:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.removeprefix("-").isdigit() or len(text) > 9:
        raise BadRequest(reason=f"{name} is not a number")
    return int(text)


def _answer(*views: Message, many: bool = False, status: int = 200) -> web.Response:
    texts = [view.model_dump_json() for view in views]
    return web.json_response(text=f"[{','.join(texts)}]" if many else texts[0], status=status)
