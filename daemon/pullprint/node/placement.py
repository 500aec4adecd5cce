"""Placement: jobs that were sealed here get holders beside this node.

A job is answered for as soon as it is sealed here; the rest happens afterwards and beside everything else. Peers get
the file first. When those that could be had have it, a key table with fresh parts for each is made: writing it into the
index is the decision, and whom it names is told until it has heard. The data key is in memory for that alone; whoever
was restarted meanwhile asks the cloud for its part, and opens the key anew.

More copies for a job of a later generation (a holder has gone, or only one peer could be had) are not made here yet.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
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
from pullprint.mesh.handlers import Interrupted
from pullprint.mesh.peers import NotAPeer, Peers
from pullprint.mesh.rate import Rate
from pullprint.model.placement import HOLDERS, Candidate, Role, others_wanted, rank
from pullprint.model.states import ENDED, UNDER_WAY, State, WrongState
from pullprint.node.holder import Holder
from pullprint.node.metrics import Counts
from pullprint.node.settings import Settings
from pullprint.node.site import Site
from pullprint.vault import keys
from pullprint.vault.generation import make_table, measure
from pullprint.vault.header import Header, SealDamaged
from pullprint.vault.index import Index
from pullprint.vault.keyring import Identity
from pullprint.vault.opening import read_header
from pullprint.vault.parts import open_for_release, open_part, seal_part
from pullprint.vault.record import Record, Step
from pullprint.vault.sealing import Party
from pullprint.wire.mesh import Accepted, Installation, Offer, Received, read_table
from pullprint.wire.node import CLOUD, Candidates, PartAsk, PartItem, PartyKey
from pullprint.wire.types import Message

log = logging.getLogger(__name__)

Answer = TypeVar("Answer", bound=Message)

WORKERS = 8
"""Jobs that are placed at a time: one that waits for a peer keeps no other waiting."""
KEYS = 256
KEY_TIME = 600.0
"""At most so many data keys are in memory, each for so many seconds."""
PATIENCE = 3.0
"""Seconds without a sign of life after which a peer is passed over."""
BAD_TIME, BACK_TIME = 30.0, 5.0
"""Seconds for which nothing more is sent to it then; and to one that only was away, and is back."""
LIST_FRESH = 30.0
"""Seconds for which the cloud's list of candidates serves other jobs, too."""
BUFFERED = 4 << 20
"""Bytes of a copy that may wait in the system's buffers when the last of it has been handed over."""
SLOW_LINK, SLOW_DISK = 1 << 20, 10 << 20
"""Bytes per second that a peer takes from there, and makes durable, at least."""
RETRY, LONGEST_RETRY = 2.0, 60.0
"""Seconds until a job that could not be placed is tried again."""
BUSY_RETRY = 1.0
"""The same for one that is being released."""
DIRECT_DELAY = 5.0
"""Seconds for which a job of a direct queue is left alone: most are printed by then."""
REFUSED_RETRY = 60.0
"""Seconds until a holder that refused a key table is told again."""
RESTART_PACE = 0.05
"""Seconds between two key tables that a peer is told of only because this node was restarted."""
RESCAN = 300.0
"""Seconds between two looks for jobs that nobody else holds."""
REMEMBERED = 10_000
"""Jobs whose holders' words are remembered."""
FIRST_TABLE = 2


class CloudKeyOld(PullprintError):
    """This host has not heard from its cloud for too long to give a job more holders. The job is held here."""

    code = "key-too-old"


class Mesh(Protocol):
    """What of `mesh.client` is needed here."""

    async def ask(
        self, node: str, path: str, message: Message | None, answer: type[Answer], timeout: float = ...
    ) -> Answer: ...
    async def tell(self, node: str, path: str, message: Message, timeout: float = ...) -> None: ...
    async def send_copy(self, node: str, job: str, path: Path, offset: int, size: int) -> Received: ...


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


@dataclass(frozen=True, slots=True)
class _Copy:
    """The sealed file that is to be sent."""

    job: str
    path: Path
    size: int
    digest: bytes
    expires: int


class _Ended(Exception):
    """The job is over."""


class Placement:
    """Finds holders for this node's jobs, and tells them."""

    def __init__(
        self, settings: Settings, holder: Holder, site: Site, identity: Identity, clock: Clock,
        counts: Counts | None = None,
    ) -> None:  # fmt: skip
        self._counts = counts or Counts()
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
        self._transfers = asyncio.Semaphore(settings.mesh_transfers)
        self._bad: dict[str, tuple[float, bool]] = {}
        """By peer: when it failed, and whether by being away."""
        self._listed: tuple[float, int, tuple[str, ...]] = (-LIST_FRESH, 0, ())
        self._listing = asyncio.Lock()
        self._untold: dict[str, dict[str, float]] = {}
        """By peer: the jobs whose table it is to be told of, and when."""
        self._restarted: set[tuple[str, str]] = set()
        """Peer and job of those that are told once more after a restart."""
        self._bringing: set[str] = set()
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
        self._queue = asyncio.PriorityQueue()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work(), name="placement")
                group.create_task(self._remember(peers), name="placement: unplaced")
                group.create_task(self._enqueue(), name="placement: queue")
                try:
                    await self._tell_after_restart()
                except PullprintError as error:
                    log.error("placement: %s", error)
                while True:
                    ticket = self._wake.ticket
                    for node in self._untold.keys() - self._bringing:
                        self._bringing.add(node)
                        group.create_task(self._bring(node), name="placement: tables")
                    await self._wake.wait(ticket)
        finally:
            self._peers = self._client = None
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
        copy = _Copy(record.id, path, size, digest, record.expires)
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

    async def _unless_ended(self, copy: _Copy) -> list[Party]:
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

    async def _spread(self, copy: _Copy) -> list[Party]:
        """Work down the list of candidates, as many at a time as are wanted."""
        wanted = others_wanted(self._role)
        candidates = iter(await self._candidates(copy.size))
        parties: list[Party] = []

        async def lane(nodes: Iterator[str]) -> None:
            for node in nodes:
                if party := await self._send(node, copy):
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
        return [node for node in dict.fromkeys(ranked) if node in states and not self._is_bad(node)]

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
            self._listed = self._clock.monotonic(), room, answer.nodes
            return answer.nodes

    async def give(self, node: str, record: Record) -> Party | None:
        """*node*, which has a durable copy of *record* now, whatever generation that is of; None when it could not be
        had. Raises OSError, NotAPeer."""
        if self._client is None:
            return None
        path = self._holder.path(record.id)
        size, digest = await asyncio.to_thread(measure, path)
        return await self._send(node, _Copy(record.id, path, size, digest, record.expires))

    async def _send(self, node: str, copy: _Copy) -> Party | None:
        """*node*, which has a durable copy now; None when it could not be had."""
        assert self._client is not None
        if self._is_bad(node):
            return None
        offer = Offer(size=copy.size, digest=copy.digest, expires=copy.expires)
        have = -1
        try:
            while True:
                accepted = await self._client.ask(
                    node, f"/mesh/v1/copies/{copy.job}", offer, Accepted, timeout=PATIENCE
                )
                if not have < accepted.have <= copy.size:
                    raise ValueError("it does not keep what it is sent")
                have = accepted.have
                if have < copy.size and not await self._sent(node, copy, have):
                    continue  # some of it may have arrived, and then the rest may, too
                return await asyncio.to_thread(_party, node, accepted.key)
        except (PeerAway, TimeoutError) as error:
            self._pass_over(node, error)
        except PeerRefused as error:
            if error.code in _ITS_OWN:
                self._pass_over(node, error)
            else:
                log.info("%s takes no copy of %s: %s", node, copy.job, error.code)
        except (NotAPeer, ValueError, OSError) as error:
            log.info("%s gets no copy of %s: %s", node, copy.job, error)
        return None

    async def _sent(self, node: str, copy: _Copy, offset: int) -> bool:
        """Send *copy* from *offset* on; False when it broke off after some of it was gone.

        Raises PeerAway, PeerRefused, TimeoutError, NotAPeer, OSError.
        """
        assert self._client is not None
        sent = False
        async with self._transfers, _watched(copy.size - offset) as watch:
            try:
                received = await self._client.send_copy(node, copy.job, copy.path, offset, copy.size)
                sent = True
            except (PeerAway, PeerRefused) as error:
                if watch.moved and error.code in (PeerAway.code, Interrupted.code):
                    return False
                raise
            finally:
                self._counts.transfer("sent", watch.moved, done=sent)
        if (received.size, received.digest) != (copy.size, copy.digest):
            raise ValueError("it says that it has something else")
        return True

    def _pass_over(self, node: str, error: Exception) -> None:
        log.info("%s is passed over for %d s: %s", node, BAD_TIME, error or "it is silent")
        self._bad = {each: failed for each, failed in self._bad.items() if self._is_bad(each)}
        self._bad[node] = self._clock.monotonic(), isinstance(error, PeerAway)

    def _is_bad(self, node: str) -> bool:
        """Whether *node* failed lately. One that was away, and has greeted since, is tried again soon."""
        failed, away = self._bad.get(node, (-BAD_TIME, False))
        since = self._clock.monotonic() - failed
        if since >= BAD_TIME or self._peers is None:
            return False
        silent = next((state.silent for state in self._peers.states() if state.peer.node == node), None)
        return not (away and since > BACK_TIME and silent is not None and silent < since)

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
        return await asyncio.to_thread(self._unwrapped, header, item)

    def _unwrapped(self, header: Header, item: PartItem) -> bytes:
        private = self._holder.keyring.private
        ours, slot = header.slot(self._identity.node)
        theirs, _ = header.slot(CLOUD)
        own = open_part(
            slot.sealed, private(slot.key), job=header.job, party=slot.party, key=slot.key,
            generation=header.generation,
        )  # fmt: skip
        order = f"placement-{header.generation}"
        part = open_for_release(item.part, private(item.part_key), job=header.job, order=order, key=item.part_key)
        return keys.unwrap(header, {ours: own, theirs: part})

    async def _decide(
        self, record: Record, header: Header, copy: _Copy, parties: Sequence[Party], data_key: bytes
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
            if node != self._identity.node and node not in told:
                self._untold.setdefault(node, {}).setdefault(record.id, 0.0)
        self._wake.ring()

    async def _tell_after_restart(self) -> None:
        """Whether those that were told last had answered, nobody knows any more."""
        for record in await self._holder.read(Index.in_states, State.HELD, State.UNCERTAIN):
            if record.replica or record.generation != FIRST_TABLE:
                continue  # later ones are `node.regeneration`'s
            kept = await asyncio.to_thread(self._holder.path(record.id).exists)
            if self._identity.node not in record.holders and not kept:
                continue  # all of them had
            for node in record.holders:
                if node != self._identity.node:
                    self._untold.setdefault(node, {})[record.id] = 0.0
                    self._restarted.add((node, record.id))
        self._wake.ring()

    async def _bring(self, node: str) -> None:
        """Tell *node* all that waits for it."""
        backoff = Backoff(RETRY / 4, LONGEST_RETRY)
        try:
            while jobs := self._untold.get(node):
                job, due = min(jobs.items(), key=lambda each: each[1])
                if (rest := due - self._clock.monotonic()) > 0:
                    ticket = self._wake.ticket
                    await self._wake.wait(ticket, rest)
                    continue
                pause = await self._told_of(node, job)
                if pause is None:
                    del jobs[job]
                    backoff.reset()
                elif pause:
                    jobs[job] = self._clock.monotonic() + pause
                else:
                    await self._clock.sleep(backoff.next())
                if (node, job) in self._restarted and pause is None:
                    self._restarted.discard((node, job))
                    await self._clock.sleep(RESTART_PACE)
        finally:
            self._bringing.discard(node)
            if not self._untold.get(node):
                self._untold.pop(node, None)

    async def _told_of(self, node: str, job: str) -> float | None:
        """None when *node* has heard that it holds *job*, or need not any more; else seconds until it is told again, 0
        when the node itself does not answer."""
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
                copy = _Copy(job, self._holder.path(job), table.size, table.digest, record.expires)
                if not await self._send(node, copy):
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


_ITS_OWN = frozenset({"not-a-holder", "no-room", "busy", "unexpected"})
"""Refusals that the next job would get, too."""
_OVER = frozenset({"ended"})


def _read(path: Path) -> tuple[Header, tuple[int, bytes]]:
    """The header of the sealed file at *path*, its length and SHA-256. Blocking. Raises SealDamaged, OSError."""
    return read_header(path), measure(path)


def _installation(record: Record, token: str, picture: bytes) -> Installation:
    return Installation(
        table=token, expires=record.expires, owner=record.owner, host=record.host, cups_job_id=record.cups_job_id,
        claim_code=record.claim_code, picture_key=picture,
    )  # fmt: skip


def _party(node: str, key: PartyKey) -> Party:
    """*node* as a party. Raises ValueError when nothing can be sealed to its *key*."""
    try:
        seal_part(bytes(32), key.public, job="0" * 32, party=node, key=key.key, generation=FIRST_TABLE)
    except Exception as error:  # cryptography's own, which differ
        raise ValueError("its key is none") from error
    return Party(node, key.key, key.public)


class _Watch:
    """A transfer's signs of life: no piece of it may take longer than `PATIENCE`."""

    def __init__(self, size: int, limit: asyncio.Timeout) -> None:
        self.moved = 0
        self._size = size
        self._limit = limit

    def pause(self) -> None:
        """We wait for our own limit now, not for the peer."""
        self._limit.reschedule(None)

    def resume(self, count: int) -> None:
        """*count* bytes more are handed over."""
        self.moved += count
        patience = PATIENCE
        if self.moved >= self._size:
            patience += min(self._size, BUFFERED) / SLOW_LINK + self._size / SLOW_DISK
        self._limit.reschedule(asyncio.get_running_loop().time() + patience)


_WATCH: ContextVar[_Watch | None] = ContextVar("_WATCH", default=None)


class WatchedRate(Rate):
    """A `Rate` at which placement sees that a transfer moves."""

    async def take(self, count: int) -> None:
        """As `Rate.take`."""
        watch = _WATCH.get()
        if watch is not None:
            watch.pause()
        await super().take(count)
        if watch is not None:
            watch.resume(count)


@asynccontextmanager
async def _watched(size: int) -> AsyncIterator[_Watch]:
    """A transfer of *size* bytes is sent in this block. Raises TimeoutError when it stands still."""
    async with asyncio.timeout(PATIENCE) as limit:
        watch = _Watch(size, limit)
        token = _WATCH.set(watch)
        try:
            yield watch
        finally:
            _WATCH.reset(token)
