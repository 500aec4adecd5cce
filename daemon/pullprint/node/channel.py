"""The node's side of the channel to its cloud: one poll that only listens, and separate requests to say something.

Every (re)connect begins with the configuration and a full list of what is held, so that a message lost anywhere costs
one poll. Orders are carried out beside the poll; everything else that the inbox brings is quick.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Protocol

from pullprint import __version__
from pullprint.base.backoff import Backoff
from pullprint.base.bell import Bell
from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.base.text import printable
from pullprint.model.states import Event, State, WrongState
from pullprint.node.client import CloudAway, CloudClient, CloudRefused
from pullprint.node.holder import Holder
from pullprint.node.release import Releaser
from pullprint.node.site import Site
from pullprint.node.uploads import Uploads
from pullprint.printers.delivery import Prepared
from pullprint.vault.index import Index
from pullprint.vault.parts import seal_picture_key
from pullprint.vault.record import Record, Step
from pullprint.wire import PROTOCOL, check_protocol
from pullprint.wire import node as wire

log = logging.getLogger(__name__)

WATCHDOG = 120.0
"""Seconds after which a silent poll is given up: twice what the cloud parks."""
CONFIG_FRESH = 6 * 3_600
"""Seconds after which the configuration is fetched again although nothing said that it changed (its key is a day
key)."""
PLACE_FRESH = 60.0
"""Seconds between two looks whether this host is at another address now."""
GATHER = 0.1
"""Seconds from the first change to its report. The steps of a release come within milliseconds of each other, and
telling each at once takes the processor from the release itself."""
HEAD_START = 0.001
"""Seconds for a request to leave before a process is started, during which this one stands still."""
REPORTS = 200
"""Events in one request."""
LOST_VOTE = (
    "This host came back with an old or incomplete copy of its disk, so nobody can tell whether this was printed. It "
    "is still held: choose “print again” or “it came out”."
)
OVER = "It was deleted or printed already; the copy that was still on this host is destroyed."


class Mesh(Protocol):
    """What the cloud is told of this node's mesh, and what it sends for it."""

    role: str
    moved: Bell
    """Rings when `endpoints` may have changed."""

    async def accept(self, token: str) -> bool: ...
    async def endpoints(self) -> tuple[str, ...]: ...
    async def room(self) -> int: ...
    async def change_holders(self, item: wire.HoldersItem) -> None: ...


class Channel:
    """Keeps this node and its cloud in step; `run` ends only when it is cancelled."""

    def __init__(
        self, client: CloudClient, site: Site, holder: Holder, releaser: Releaser, uploads: Uploads, clock: Clock,
        mesh: Mesh | None = None,
    ) -> None:  # fmt: skip
        """Without a *mesh* this node is alone at its site."""
        self._client = client
        self._site = site
        self._holder = holder
        self._releaser = releaser
        self._uploads = uploads
        self._clock = clock
        self._mesh = mesh
        self._endpoints: tuple[str, ...] = ()
        """Where the cloud believes that this node's mesh listens."""
        self._since = 0
        self._compared = False
        self._saying = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None
        self.connected_since = 0.0
        """Seconds since the epoch; 0 while the cloud is away."""
        self.trouble = ""
        """Why it is away, for people."""
        self.cloud_version = ""
        """What it runs, as far as it said."""

    @property
    def connected(self) -> bool:
        """Whether the cloud answered the last time."""
        return self.connected_since > 0

    async def run(self) -> None:
        """Connect, listen and report until cancelled; then let orders under way end."""
        backoff = Backoff()
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                asked = 0.0
                try:
                    await self._connect()
                    backoff.reset()
                    self.connected_since, self.trouble = self._clock.now(), ""
                    log.info("connected to %s", self._client.host)
                    async with asyncio.TaskGroup() as connection:
                        connection.create_task(self._listen(), name="inbox")
                        connection.create_task(self._report(), name="reports")
                        connection.create_task(self._refresh(), name="configuration")
                except* (PullprintError, OSError) as errors:
                    error = errors.exceptions[0]
                    while isinstance(error, BaseExceptionGroup):
                        error = error.exceptions[0]
                    if self.connected or not self.trouble:
                        log.warning("cloud: %s", error)
                    self.connected_since, self.trouble = 0.0, str(error)
                    self._holder.vouched = True  # whether this disk is an old copy, nobody can say now
                    asked = error.retry_after if isinstance(error, CloudRefused) else 0.0
                await self._clock.sleep(max(backoff.next(), asked))

    async def ask(self, ask: wire.Ask) -> wire.OrderItem:
        """An order for a release wanted at this node. Raises CloudAway, CloudRefused."""
        if not self.connected:
            # Not before the cloud has seen what this node holds: see _connect.
            raise CloudAway(cloud=self._client.host, reason=self.trouble or "this host is only just connecting")
        # What the cloud does not know yet it cannot order; usually there is nothing left to say.
        await self._say_all()
        return await self._client.post("/node/v1/releases", ask, wire.OrderItem)

    async def order(self, record: Record, ask: wire.Ask) -> tuple[wire.OrderItem, Prepared | None]:
        """As `ask`, for *record*; meanwhile what will carry out the order is prepared."""
        asking = asyncio.create_task(self.ask(ask), name="ask")
        prepared = None
        try:
            await self._clock.sleep(HEAD_START)
            prepared = await self._releaser.prepare(record, ask.printer, ask.changes)
            return await asking, prepared
        except BaseException:
            asking.cancel()
            if prepared:
                prepared.close()
            raise

    def take_order(self, item: wire.OrderItem, prepared: Prepared | None = None) -> None:
        """Carry out *item* beside everything else."""
        self._beside(self.carry_out(item, prepared), "order")

    def _beside(self, work: Coroutine[None, None, None], name: str) -> None:
        """Do *work*, which raises nothing, beside the poll; `run` is under way, or nothing could have asked for it."""
        assert self._tasks is not None
        self._tasks.create_task(work, name=name)

    async def _connect(self) -> None:
        await self.configure()
        differences = await self._reconcile()
        if differences.restored:
            log.warning("this disk is an old copy; its jobs' votes are void")
            await self._holder.admit_old_copy()
            self._compared = True
            differences = await self._reconcile()
        for job in differences.report:
            record = await self._holder.read(Index.get, job)
            if record.vote.lost and record.state is State.HELD and len(record.holders) < 2:
                # Other voters could tell whether it was printed in between; neither side can.
                await self._holder.change(Index.move, job, Event.LOST_TRACK, Step("vote-lost", LOST_VOTE))
            await self._holder.read(Index.report_again, job)
        for job in differences.cancelled:
            await self._end(job, Event.CANCEL, Step("cancelled", OVER))

    async def _reconcile(self) -> wire.Differences:
        key = await asyncio.to_thread(self._holder.keyring.current, self._clock.now())
        held = await self._holder.read(Index.jobs)
        mesh = self._mesh
        endpoints = await mesh.endpoints() if mesh else ()
        holdings = wire.Holdings(
            epoch=self._holder.epoch,
            version=__version__,
            key=key,
            last_event=await self._last_event(),
            jobs=tuple(wire.Holding(job=each.id, state=each.state, generation=each.generation) for each in held),
            role=mesh.role if mesh else "normal",
            endpoints=endpoints,
            room=await mesh.room() if mesh else 0,
        )
        differences = await self._client.post("/node/v1/reconcile", holdings, wire.Differences)
        if not differences.restored:
            self._compared = self._holder.vouched = True
        self._endpoints = endpoints
        self._site.cloud_says(differences.now)
        self.cloud_version = printable(differences.version, 255)
        return differences

    async def _last_event(self) -> int:
        """At first that from before this process: what it has written since says nothing of how old the disk is."""
        return await self._holder.read(Index.last_event) if self._compared else self._holder.events_before

    async def configure(self) -> None:
        """Fetch the configuration now. Raises CloudAway, CloudRefused, ProtocolRefused, StatementRefused."""
        signed = await self._client.get("/node/v1/config", wire.SignedConfig)
        if signed is None:
            raise CloudAway(cloud=self._client.host, reason="it has no configuration for this node")
        check_protocol(PROTOCOL, signed.oldest, signed.protocol)
        self._site.cloud_says(signed.now)
        await self._site.accept(signed.config)
        if self._mesh and signed.roster:
            await self._mesh.accept(signed.roster)

    async def _refresh(self) -> None:
        while True:
            await self._stale()
            await self._connect()

    async def _stale(self) -> None:
        """Until what the cloud and this node said of themselves is old, or wrong."""
        mesh = self._mesh
        if mesh is None:
            await self._clock.sleep(CONFIG_FRESH)
            return
        until = self._clock.monotonic() + CONFIG_FRESH
        while self._clock.monotonic() < until:
            ticket = mesh.moved.ticket
            if await mesh.endpoints() != self._endpoints:
                return
            await mesh.moved.wait(ticket, PLACE_FRESH)

    async def _listen(self) -> None:
        while True:
            answer = await self._client.get("/node/v1/inbox", wire.InboxAnswer, f"since={self._since}", WATCHDOG)
            if answer is None:
                continue
            self._site.cloud_says(answer.now)
            for item in answer.items:
                await self._take(item)
                self._since = item.seq

    async def _take(self, item: wire.Item) -> None:
        match item:
            case wire.OrderItem():
                self.take_order(item)
            case wire.HoldersItem():
                if self._mesh:
                    self._beside(self._mesh.change_holders(item), "holders")
            case wire.CancelItem():
                await self._cancel(item.job, item.by)
            case wire.OwnerItem():
                step = Step("claimed", f"Claimed by {item.owner}.", {"owner": item.owner})
                await self._change(Index.learn, item.job, step, owner=item.owner)
            case wire.SettleItem():
                await self._settle(item.job, Step("came-out", f"{item.by} says that it came out."))
            case wire.ConfigItem():
                await self.configure()
            case wire.PictureItem():
                self._beside(self._answer(item), "pictures")
            case wire.UploadItem():
                self._beside(self._uploads.take(item, self._say_all), "upload")
            case wire.UnknownItem():
                log.warning("the cloud sent something of the kind %s: this version does not know it", item.kind)

    async def carry_out(self, item: wire.OrderItem, prepared: Prepared | None = None) -> None:
        """Release under *item*; a task of its own, so nothing may pass but cancellation."""
        try:
            await self._releaser.execute(item, prepared)
        except PullprintError as error:
            log.warning("an order was refused: %s", error)
        except Exception:
            log.exception("releasing failed")

    async def _answer(self, item: wire.PictureItem) -> None:
        """Seal the keys of the pictures that *item* asks for; a task of its own, and worth no second try."""
        try:
            keys = await self._holder.read(Index.picture_keys, item.jobs)
            sealed = await asyncio.to_thread(_seal_keys, keys, item.public)
            await self._client.tell("/node/v1/pictures", wire.PictureKeys(request=item.request, keys=sealed))
        except (PullprintError, ValueError) as error:  # ValueError: what asks has no usable key
            log.info("pictures: %s", error)
        except Exception:
            log.exception("sealing the keys of pictures failed")

    async def _cancel(self, job: str, by: str) -> None:
        await self._end(job, Event.CANCEL, Step("cancelled", f"Deleted by {by}.", {"by": by}))

    async def _settle(self, job: str, step: Step) -> None:
        try:
            record = await self._holder.read(Index.get, job)
        except NotFound:
            return
        # What another holder did leaves the job simply held here.
        elsewhere = record.state is State.HELD and record.holders
        await self._end(job, Event.PRINTED_ELSEWHERE if elsewhere else Event.CAME_OUT, step)

    async def _end(self, job: str, event: Event, step: Step) -> None:
        """What the cloud says may be late or repeated: a job that is gone or has moved on stays as it is."""
        try:
            await self._holder.end(job, event, step)
        except WrongState as error:
            await self._change(Index.note, job, Step("refused", error.sentence))
        except PullprintError as error:
            log.info("%s: %s", job, error.code)

    async def _change(self, *args: object, **kwargs: object) -> None:
        try:
            await self._holder.change(*args, **kwargs)  # type: ignore[arg-type]
        except PullprintError as error:
            log.info("the cloud named a job that is not here: %s", error.code)

    async def _report(self) -> None:
        while True:
            ticket = self._holder.reports.ticket
            await self._say_all()
            await self._holder.reports.wait(ticket)
            await self._clock.sleep(GATHER)

    async def _say_all(self) -> None:
        async with self._saying:
            while reports := await self._holder.read(Index.outbox, REPORTS):
                # Put together as text: each report was checked when it was made, and there may be many.
                events = ",".join(f'{{"n":{n},"report":{report}}}' for n, report in reports)
                body = f'{{"epoch":"{self._holder.epoch}","events":[{events}]}}'.encode()
                acknowledged = await self._client.post("/node/v1/events", body, wire.Acknowledged)
                checkpoint("reported")
                await self._holder.read(Index.acknowledge, acknowledged.n)
                if acknowledged.n < reports[0][0]:
                    raise CloudRefused(500, "events", "The cloud did not take this host's reports.")


def _seal_keys(keys: dict[str, bytes], public: bytes) -> dict[str, bytes]:
    """Raises ValueError when *public* is no key at all."""
    return {job: seal_picture_key(key, public, job=job) for job, key in keys.items()}
