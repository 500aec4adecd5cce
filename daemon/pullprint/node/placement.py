"""Placement: jobs that were sealed here get holders beside this node.

A job is answered for as soon as it is sealed here; the rest happens afterwards and beside everything else. Peers get
the file first. When those that could be had have it, a key table with fresh parts for each is made: writing it into the
index is the decision, and whom it names is told until it has heard. The data key is in memory for that alone; whoever
was restarted meanwhile asks the cloud for its part, and opens the key anew.

Who holds a job after that, because a holder has gone or only one peer could be had, the cloud orders: see
`node.generation_author`.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Protocol, TypeVar

from pullprint.base.backoff import Backoff
from pullprint.base.bell import Bell
from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError
from pullprint.base.files import replace as write_file
from pullprint.mesh.client import PeerAway, PeerRefused
from pullprint.mesh.peers import NotAPeer, Peers
from pullprint.model.placement import HOLDERS, Candidate, Role, others_wanted, rank
from pullprint.model.states import ENDED, UNDER_WAY, State, WrongState
from pullprint.node.holder import Holder
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.node.telling import Telling
from pullprint.node.transfer import PATIENCE, Copy, Mesh, Transfers
from pullprint.vault.generation import make_table, measure, recovered_key
from pullprint.vault.header import Header, SealDamaged
from pullprint.vault.index import Index
from pullprint.vault.keyring import Identity
from pullprint.vault.opening import read_header
from pullprint.vault.record import Record, Step
from pullprint.vault.sealing import Party
from pullprint.wire.mesh import FIRST_TABLE, Installation, read_table
from pullprint.wire.node import CLOUD, Candidates, PartAsk, PartItem
from pullprint.wire.types import Message

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)

WORKERS = 8
"""Jobs that are placed at a time: one that waits for a peer keeps no other waiting."""
KEYS = 256
KEY_TIME = 600.0
"""At most so many data keys are in memory, each for so many seconds."""
LIST_FRESH = 30.0
"""Seconds for which the cloud's list of candidates serves other jobs, too."""
SLOW_DISK = 10 << 20
"""Bytes per second that a peer reads, at least."""
SOON = 0.5
"""Seconds from a peer's first sign of life to the next offer: others may turn up with it."""
RETRY, LONGEST_RETRY = 2.0, 60.0
"""Seconds until a job that could not be placed is tried again."""
BUSY_RETRY = 1.0
"""The same for one that is being released."""
DIRECT_DELAY = 5.0
"""Seconds for which a job of a direct queue is left alone: most are printed by then."""
REFUSED_RETRY = 60.0
"""Seconds until a holder that refused a key table is told again."""
RESCAN = 300.0
"""Seconds between two looks for jobs that nobody else holds."""
REMEMBERED = 10_000
"""Jobs whose holders' words are remembered."""


class CloudKeyOld(PullprintError):
    """This host has not heard from its cloud for too long to give a job more holders. The job is held here."""

    code = "key-too-old"


class Cloud(Protocol):
    """What of `node.client` is needed here."""

    async def get(self, path: str, answer: type[Answer], query: str = ..., timeout: float = ...) -> Answer | None: ...
    async def post(self, path: str, message: Message | bytes, answer: type[Answer], timeout: float = ...) -> Answer: ...


@dataclass(eq=False)
class _Waiting:
    """A job that is to be placed."""

    job: str
    fresh: bool
    backoff: Backoff
    key: bytes | None = field(default=None, repr=False)
    until: float = 0.0
    """When the key is forgotten."""
    due: float = 0.0
    queued: bool = False


class _Ended(Exception):
    """The job is over."""


class Placement:
    """Finds holders for this node's jobs, and tells them."""

    def __init__(
        self, settings: Settings, holder: Holder, site: Site, identity: Identity, clock: Clock, transfers: Transfers
    ) -> None:
        self._settings = settings
        self._holder = holder
        self._site = site
        self._identity = identity
        self._clock = clock
        self._role = Role(settings.role)
        self._peers: Peers | None = None
        self._client: Mesh | None = None
        self.cloud: Callable[[], Cloud | None] = lambda: None
        """The cloud, while it is there."""
        self.changed = Bell()
        """Rings when a job has more copies."""
        self._wake = Bell()
        self._jobs: dict[str, _Waiting] = {}
        self._queue: asyncio.PriorityQueue[tuple[bool, int, str]] = asyncio.PriorityQueue()
        self._numbers = count()
        self.transfers = transfers
        self._listed: tuple[float, int, tuple[str, ...]] = (-LIST_FRESH, 0, ())
        self._listing = asyncio.Lock()
        self.telling = Telling(self._tell, clock, RETRY / 4)
        """Peers that are to hear of which jobs they are holders."""
        self._told: OrderedDict[str, set[str]] = OrderedDict()
        """By job: the holders that said that they hold it."""

    def place(self, record: Record, data_key: bytes) -> None:
        """See to it that others hold *record*, too, which was sealed just now; raises nothing and waits for nothing."""
        if not self._others():
            return  # whoever comes later gets it by `_remember`
        kept = sum(waiting.key is not None for waiting in self._jobs.values())
        waiting = self._add(record.id, fresh=True)
        if kept < KEYS:
            waiting.key, waiting.until = data_key, self._clock.monotonic() + KEY_TIME
        if record.direct_printer and self._settings.min_copies == 1:
            waiting.due = self._clock.monotonic() + DIRECT_DELAY
        self._wake.ring()

    async def enough(self, job: str, wanted: int, seconds: float) -> bool:
        """Whether *job* gets to *wanted* copies, each of a node that holds it, within *seconds*; one that has ended
        needs none."""
        deadline = self._clock.monotonic() + seconds
        while True:
            ticket = self.changed.ticket
            record = await self._holder.read(Index.get, job)
            if self._copies(record) >= wanted or record.state in ENDED:
                return True
            if record.generation > 1:
                self._tell_all(record)
            elif job not in self._jobs and self._others():
                self._add(job, fresh=True)
                self._wake.ring()
            left = deadline - self._clock.monotonic()
            if left <= 0 or not await self.changed.wait(ticket, left):
                return False

    async def run(self, peers: Peers, client: Mesh) -> None:
        """Place jobs until cancelled."""
        self._peers, self._client = peers, client
        self.transfers.attach(peers, client)
        self._queue = asyncio.PriorityQueue()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work(), name="placement")
                group.create_task(self._remember(peers), name="placement: unplaced")
                group.create_task(self._try_again(peers), name="placement: peers")
                group.create_task(self._enqueue(), name="placement: queue")
                try:
                    await self._tell_after_restart()
                except PullprintError as error:
                    log.error("placement: %s", error)
                await self.telling.run()
        finally:
            self._peers = self._client = None
            self.transfers.attach(None, None)
            self._jobs.clear()

    def _others(self) -> bool:
        return self._peers is not None and bool(self._peers.others())

    def _copies(self, record: Record) -> int:
        own = not record.holders or self._identity.node in record.holders
        return own + len(self._told.get(record.id, set()).intersection(record.holders))

    # Which jobs, and when.

    def _add(self, job: str, *, fresh: bool) -> _Waiting:
        return self._jobs.setdefault(job, _Waiting(job, fresh, Backoff(RETRY, LONGEST_RETRY)))

    async def _remember(self, peers: Peers) -> None:
        """Take up what nobody else holds: after a restart, when there are new peers, and from time to time."""
        while True:
            ticket = peers.changed.ticket
            if self._others():
                try:
                    for record in await self._holder.read(Index.unplaced):
                        self._add(record.id, fresh=False)
                except PullprintError as error:
                    log.error("placement: %s", error)
                self._wake.ring()
            await peers.changed.wait(ticket, RESCAN)

    async def _try_again(self, peers: Peers) -> None:
        """What nobody took is offered at once when somebody turns up."""
        while True:
            ticket = peers.awoke.ticket
            await peers.awoke.wait(ticket)
            for waiting in self._jobs.values():
                if not waiting.queued:
                    waiting.due = min(waiting.due, self._clock.monotonic() + SOON)
                    waiting.backoff.reset()
            self._wake.ring()

    async def _enqueue(self) -> None:
        """Hand jobs to the workers when they are due, and forget keys in time."""
        while True:
            ticket = self._wake.ticket
            now = self._clock.monotonic()
            pause = RESCAN
            for waiting in self._jobs.values():
                if waiting.key is not None and now >= waiting.until:
                    waiting.key = None
                if waiting.queued:
                    continue
                if waiting.due <= now:
                    waiting.queued = True
                    self._queue.put_nowait((not waiting.fresh, next(self._numbers), waiting.job))
                else:
                    pause = min(pause, waiting.due - now)
                if waiting.key is not None:
                    pause = min(pause, waiting.until - now)
            await self._wake.wait(ticket, max(pause, 0.01))

    async def _work(self) -> None:
        while True:
            _, _, job = await self._queue.get()
            waiting = self._jobs[job]
            try:
                pause = await self._place(waiting)
            except (PullprintError, OSError) as error:
                log.info("%s is not placed: %s", job, error)
                pause = waiting.backoff.next()
            except Exception:
                log.exception("placing failed")
                pause = LONGEST_RETRY
            waiting.queued = False
            if pause is None:
                del self._jobs[job]
            else:
                waiting.due = self._clock.monotonic() + pause
            self._wake.ring()

    # One job.

    async def _place(self, waiting: _Waiting) -> float | None:
        """Seconds until it is to be tried again; None when there is nothing more to do."""
        try:
            record = await self._holder.read(Index.get, waiting.job)
        except NotFound:
            return None
        if record.state in ENDED or record.generation > 1:
            return None
        if record.state in UNDER_WAY or record.id in self._holder.busy:
            return BUSY_RETRY
        if record.state is not State.HELD or record.vote.lost or not all(a.nothing_sent for a in record.vote.attempts):
            return waiting.backoff.next()  # it may have been printed: new voters could not know
        if waiting.key is None and self.cloud() is None:
            return waiting.backoff.next()  # without the cloud's part there is no table, and a copy is of no use
        path = self._holder.path(record.id)
        try:
            header, (size, digest) = await asyncio.to_thread(_read, path)
        except (SealDamaged, FileNotFoundError) as error:
            log.error("%s cannot be placed: %s", record.id, error)
            return None
        copy = Copy(record.id, path, size, digest, record.expires)
        try:
            parties = await self._unless_ended(copy)
        except _Ended:
            return None
        if not parties:
            await self._say_short(record)
            return waiting.backoff.next()
        checkpoint("copies-sent")
        data_key = waiting.key or await self._recovered(record, header)
        try:
            await self._decide(record, header, copy, parties, data_key)
        except WrongState:
            log.info("%s is being released, or has ended, and is placed later", record.id)
            return BUSY_RETRY
        return None

    async def _unless_ended(self, copy: Copy) -> list[Party]:
        """Those that have *copy* now. Raises _Ended."""
        parties: list[Party] = []
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(copy.job), name="placement: watch")
                parties = await self._spread(copy)
                watch.cancel()
        except* _Ended:
            parties = []
            ended = True
        else:
            ended = False
        if ended:
            raise _Ended
        return parties

    async def _watch(self, job: str) -> None:
        while True:
            ticket = self._holder.changes.ticket
            try:
                record = await self._holder.read(Index.get, job)
            except NotFound:
                raise _Ended from None
            if record.state in ENDED:
                raise _Ended
            await self._holder.changes.wait(ticket)

    async def _spread(self, copy: Copy) -> list[Party]:
        """Work down the list of candidates, as many at a time as are wanted."""
        wanted = others_wanted(self._role)
        candidates = iter(await self._candidates(copy.size))
        parties: list[Party] = []

        async def lane(nodes: Iterator[str]) -> None:
            for node in nodes:
                if party := await self.transfers.send(node, copy):
                    parties.append(party)
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(wanted):
                group.create_task(lane(candidates), name="placement: copy")
        return parties

    async def _candidates(self, size: int) -> list[str]:
        """Who may hold *size* bytes, best first: by the cloud's list, then by what was heard of peers."""
        assert self._peers is not None
        states = {state.peer.node: state for state in self._peers.states()}
        heard = []
        for node, state in states.items():
            role = state.hello.role if state.hello else state.peer.role
            room, load = (state.hello.room, state.hello.load) if state.hello else (size, 0)
            heard.append(Candidate(node, role, state.awake, room, load))
        listed = await self._list(size)
        own = rank(heard, size)
        # Whoever the cloud does not list it may not reach; we may.
        ranked = own if listed is None else [*listed, *(node for node in own if states[node].awake)]
        return [node for node in dict.fromkeys(ranked) if node in states and not self.transfers.is_bad(node)]

    async def _list(self, size: int) -> tuple[str, ...] | None:
        """The cloud's list; None while it is away."""
        async with self._listing:
            when, room, nodes = self._listed
            if self._clock.monotonic() - when < LIST_FRESH and size <= room:
                return nodes
            cloud = self.cloud()
            if cloud is None:
                return None
            room = 1 << size.bit_length()  # so that the list serves others of about that size, too
            try:
                answer = await cloud.get("/node/v1/candidates", Candidates, f"size={room}", PATIENCE)
            except PullprintError as error:
                log.info("no list of candidates: %s", error)
                return None
            if answer is None:
                return None
            if len(answer.nodes) >= others_wanted(self._role):  # else somebody may turn up any moment
                self._listed = self._clock.monotonic(), room, answer.nodes
            return answer.nodes

    async def _say_short(self, record: Record) -> None:
        trace = await self._holder.read(Index.trace, record.id)
        if not any(traced.step.event == "short" for traced in trace):
            step = Step("short", "No other host takes a copy of it now; it is held on this one only.")
            await self._holder.change(Index.learn, record.id, step)

    async def _recovered(self, record: Record, header: Header) -> bytes:
        """The data key, opened with our part and the cloud's. Raises CloudAway, CloudRefused, PartRefused,
        SealDamaged."""
        cloud = self.cloud()
        if cloud is None:
            raise CloudKeyOld
        asked = PartAsk(job=record.id, generation=record.generation)
        item = await cloud.post("/node/v1/parts", asked, PartItem)
        return await asyncio.to_thread(
            recovered_key, header, None, self._identity.node, self._holder.keyring, part=item.part,
            part_key=item.part_key, order=f"placement-{header.generation}",
        )  # fmt: skip

    async def _decide(
        self, record: Record, header: Header, copy: Copy, parties: Sequence[Party], data_key: bytes
    ) -> None:
        """Make *parties* holders of *record*. Raises WrongState, CloudKeyOld, IndexFailed, OSError."""
        now, config = self._site.cloud_now(), self._site.config
        if config.cloud_key.expires <= now:
            raise CloudKeyOld
        own = self._identity.node
        day = await asyncio.to_thread(self._holder.keyring.current, now)
        stays = self._role is not Role.CLIENT or len(parties) < HOLDERS
        holders = [Party(own, day.key, day.public), *parties] if stays else list(parties)
        cloud = Party(CLOUD, config.cloud_key.key, config.cloud_key.public)
        make = partial(
            make_table, header, data_key, holders, cloud, generation=FIRST_TABLE, size=copy.size, digest=copy.digest,
            identity=self._identity.key,
        )  # fmt: skip
        token = await asyncio.to_thread(make)
        slot = next(slot for slot in read_table(token).slots if slot.party == CLOUD)
        decided = replace(
            record, generation=FIRST_TABLE, holders=tuple(party.name for party in holders),
            own_key=day.key if stays else "", cloud_key=slot.key, cloud_slot=slot.sealed,
        )  # fmt: skip
        path = self._holder.keys_path(record.id)
        await asyncio.to_thread(write_file, path, _installation(record, token, b"").model_dump_json().encode())
        checkpoint("keys-written")
        if record.id in self._holder.busy:
            raise WrongState(state=record.state.value)
        try:
            decided = await self._holder.change(Index.regenerate, decided, token, self._step(parties, stays=stays))
        except WrongState as error:
            if State(error.fields.get("state", State.HELD)) in ENDED:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            raise
        checkpoint("placed")
        self._tell_all(decided)
        self.changed.ring()

    def _step(self, parties: Sequence[Party], *, stays: bool) -> Step:
        assert self._peers is not None
        hosts = []
        for party in parties:
            try:
                hosts.append(self._peers.peer(party.name).name)
            except NotAPeer:
                hosts.append(party.name)
        detail = {"hosts": ", ".join(hosts)}
        first, last = ", ".join(hosts[:-1]), hosts[-1]
        if not first:
            return Step("copied", f"A copy is at {last}.", detail)
        if stays:
            return Step("copied", f"Copies at {first} and {last}.", detail)
        return Step("copied", f"Copies at {first} and {last}; this host keeps none.", detail)

    # Telling whom the tables name.

    def _tell_all(self, record: Record) -> None:
        """Tell every other holder of *record* that has not said so that it holds it."""
        told = self._told.setdefault(record.id, set())
        self._told.move_to_end(record.id)
        while len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        for node in record.holders:
            if node != self._identity.node and node not in told and not self.telling.waits(node, record.id):
                self.telling.add(node, record.id)

    async def _tell_after_restart(self) -> None:
        """Whether those that were told last had answered, nobody knows any more."""
        for record in await self._holder.read(Index.in_states, State.HELD, State.UNCERTAIN):
            if record.replica or record.generation != FIRST_TABLE:
                continue  # later ones are the generations' own
            kept = await asyncio.to_thread(self._holder.path(record.id).exists)
            if self._identity.node not in record.holders and not kept:
                continue  # all of them had
            for node in record.holders:
                if node != self._identity.node:
                    self.telling.add(node, record.id, again=True)

    async def _tell(self, node: str, job: str) -> float | None:
        """See `telling.Tell`."""
        assert self._client is not None
        try:
            record = await self._holder.read(Index.get, job)
            if record.state in ENDED or node not in record.holders or record.generation != FIRST_TABLE:
                return None
            token = await self._holder.read(Index.key_table, job)
            pictures = await self._holder.read(Index.picture_keys, [job])
            message = _installation(record, token, pictures.get(job, b""))
            table = read_table(token)
            # A peer that was restarted meanwhile reads all of the file once more.
            timeout = PATIENCE + table.size / SLOW_DISK
            try:
                await self._client.tell(node, "/mesh/v1/holders", message, timeout)
            except PeerRefused as error:
                if error.code != NotFound.code:
                    raise
                # Its copy was removed before it heard that it is a holder; or afterwards, together with its vote.
                copy = Copy(job, self._holder.path(job), table.size, table.digest, record.expires)
                if not await self.transfers.send(node, copy):
                    return REFUSED_RETRY
                again = message.model_copy(update={"again": True})
                await self._client.tell(node, "/mesh/v1/holders", again, timeout)
        except (NotFound, NotAPeer) as error:
            log.info("%s is not told of %s: %s", node, job, error)
            return None
        except PeerAway:
            return 0.0
        except PeerRefused as error:
            if error.code in _OVER:
                return None
            log.warning("%s does not become a holder of %s: %s", node, job, error)
            return REFUSED_RETRY
        except (PullprintError, OSError) as error:
            log.error("%s is not told of %s: %s", node, job, error)
            return REFUSED_RETRY
        except Exception:
            log.exception("telling a holder failed")
            return REFUSED_RETRY
        checkpoint("told")
        self._told.setdefault(job, set()).add(node)
        self.changed.ring()
        await self._let_go(record)
        return None

    async def _let_go(self, record: Record) -> None:
        """A client's own copy goes once all others have theirs; its record stays, so that its owner finds it here."""
        told = self._told.get(record.id, set())
        if self._identity.node not in record.holders and len(record.holders) > 1 and told.issuperset(record.holders):
            await self._holder.shred(record.id)


_OVER = frozenset({"ended"})


def _read(path: Path) -> tuple[Header, tuple[int, bytes]]:
    """The header of the sealed file at *path*, its length and SHA-256. Blocking. Raises SealDamaged, OSError."""
    return read_header(path), measure(path)


def _installation(record: Record, token: str, picture: bytes) -> Installation:
    return Installation(
        table=token, expires=record.expires, owner=record.owner, host=record.host, cups_job_id=record.cups_job_id,
        claim_code=record.claim_code, picture_key=picture,
    )  # fmt: skip
