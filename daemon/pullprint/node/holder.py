"""The holder: every held job of this node, on disk and in its index, and every change of one.

All other files of this room change a job through here, so that one place rings the bells and keeps sealed files and
index together.
"""

import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import ParamSpec, TypeVar

from pullprint.base.bell import Bell
from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound
from pullprint.base.files import private_directory
from pullprint.base.worker import Worker
from pullprint.model.facts import Facts
from pullprint.model.job import JOB_ID, Context
from pullprint.model.owner import new_code
from pullprint.model.states import ENDED, UNDER_WAY, Event, State
from pullprint.model.votes import Attempt, Vote, prove_nothing_sent
from pullprint.vault.generation import in_generation
from pullprint.vault.header import Header, SealDamaged, SealNewer
from pullprint.vault.index import Index, IndexFailed
from pullprint.vault.keyring import Keyring
from pullprint.vault.opening import read_header
from pullprint.vault.record import Record, Step
from pullprint.wire.holders import Opening, check_links
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import FIRST_TABLE, Installation, KeyTable, read_table
from pullprint.wire.node import CLOUD

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

KEEP_ENDED = 7 * 86_400
"""Seconds that a node remembers a job that ended; also how long its job-uuid is recognised."""
INTERRUPTED = (
    "The release was interrupted on this host before anything was sent to the printer. The document is still held; "
    "release it again."
)
LOST_TRACK = (
    "This host stopped while the printer was being sent the document. It may have been printed, so it is not sent "
    "again by itself. Look at the printer, then choose “print again” or “it came out”."
)


class Holder:
    """The jobs that this node holds."""

    def __init__(self, state_dir: Path, keyring: Keyring, clock: Clock) -> None:
        self.directory = private_directory(state_dir / "jobs")
        self.keyring = keyring
        self.node = keyring.identity().node
        self._clock = clock
        self._epoch = ""
        self._hold = 0
        self.events_before = 0
        """The number of the last report that stood in the index when this process began: what the cloud compares, to
        find out whether this disk is an old copy."""
        self.vouched = True
        """Whether the cloud was asked that, or could not be asked; before, this node does not vote."""
        self._foreign = False
        """There are sealed jobs that only a newer version can open; with which keys, only that knows."""
        self._worker = Worker("index")
        self._index = Index(state_dir / "index.sqlite", clock)
        self.reports = Bell()
        """Rings when there is something to report to the cloud."""
        self.changes = Bell()
        """Rings when any job changed."""
        self.news = Bell()
        """Rings when other holders are to be told of an attempt."""
        self.busy: set[str] = set()
        """Jobs that a release is at work on in this process."""

    @property
    def epoch(self) -> str:
        """Names the index."""
        return self._epoch

    async def start(self, hold: int) -> None:
        """Bring files and index together, and settle what a crash interrupted.

        *hold* is for how many seconds a job that is found without its row is kept from its making on.
        """
        self._hold = hold
        self._epoch = await self.read(Index.epoch)
        self.events_before = await self.read(Index.last_event)
        known = await self.read(lambda index: {record.id for record in index.jobs(ended_since=0)})
        await asyncio.to_thread(self._sweep, known)
        rebuilt = await self.read(Index.rebuilding)
        for path in sorted(self.directory.iterdir()):
            if JOB_ID.fullmatch(path.name) and path.name not in known:
                await self._adopt(path, self.node, rebuilt=rebuilt)
        if not self._foreign:  # else the newer version, when it is back, must not believe that their votes are known
            await self.read(Index.rebuilt)
        for record in await self.read(Index.in_states, *UNDER_WAY):
            await self.settle(record.id)
        for record in await self.read(lambda index: index.jobs(ended_since=0)):
            if record.state in ENDED:
                await self.shred(record.id)
            elif record.facts is None and not record.replica:
                await self.change(Index.learn, record.id, FACTS_LOST, facts=Facts.unknown("restarted"))

    def close(self) -> None:
        """Finish what is being written."""
        self._worker.close()
        self._index.close()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.now()

    def path(self, job: str) -> Path:
        """Where the sealed file of *job* lies."""
        return self.directory / job

    def keys_path(self, job: str) -> Path:
        """Where the `Installation` that made this node a holder of *job* lies, its key table in it; none in a job's
        first generation. The index has it, too: this is for one that was lost."""
        return self.directory / f"{job}.keys"

    async def read(self, call: Callable[..., Result], *args: object, **kwargs: object) -> Result:
        """*call* with the index, in its thread."""
        try:
            return await self._worker.run(call, self._index, *args, **kwargs)
        except sqlite3.Error as error:
            raise IndexFailed(reason=error) from error

    async def change(self, call: Callable[..., Record], *args: object, **kwargs: object) -> Record:
        """As `read`, and wake those who wait for changes."""
        record = await self.read(call, *args, **kwargs)
        self.reports.ring()
        self.changes.ring()
        if kwargs.get("news"):
            self.news.ring()
        return record

    async def admit_old_copy(self) -> None:
        """The cloud has heard of later things than this disk knows: it was restored from a backup, and has no vote."""
        await self.read(Index.lose_votes)
        self._epoch = await self.read(Index.epoch)
        # A copy that waits to be installed would be one that was never voted on.
        for path in await asyncio.to_thread(lambda: list(self.directory.glob(".*.copy"))):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def end(self, job: str, event: Event, step: Step, **more: object) -> Record:
        """Move *job* to an end and destroy its sealed file."""
        record = await self.change(Index.move, job, event, step, **more)
        if record.state in ENDED:
            checkpoint("ended")
            await self.shred(job)
        return record

    async def keep_house(self, now: float | None) -> None:
        """Settle what a full disk left under way, end jobs whose time is over, forget those that ended long ago, and
        destroy keys that no job needs.

        *now* is the cloud's clock; None while the cloud is away, and then nothing expires: our own clock may be wrong.
        """
        for record in await self.read(Index.in_states, *UNDER_WAY):
            if record.id not in self.busy:
                await self.settle(record.id)
        for record in await self.read(Index.expired, now) if now is not None else ():
            if record.id not in self.busy:
                step = Step("expired", "It was not released in time and was deleted.")
                await self.end(record.id, Event.EXPIRE, step, tell=not record.replica)
        await self.read(Index.forget_ended, self._clock.now() - KEEP_ENDED)
        if self._foreign:
            return
        used = await self.read(Index.keys_in_use)
        for key in await asyncio.to_thread(self.keyring.destroy_unused, used, self._clock.now() - self._hold):
            log.info("destroyed day key %s", key)

    async def shred(self, job: str) -> None:
        """Destroy what is on the disk of a job that has ended, or that only others hold."""
        await asyncio.to_thread(self.path(job).unlink, missing_ok=True)
        await asyncio.to_thread(self.keys_path(job).unlink, missing_ok=True)

    def _sweep(self, known: Collection[str]) -> None:
        """Remove what an interrupted sealing left, which was never acknowledged, and key tables of nothing: those of
        *known* jobs stay, also while the file is missing, which other hosts may have."""
        for path in self.directory.glob(".*.new"):
            path.unlink()
        for path in self.directory.glob("*.keys"):
            if path.stem not in known and not path.with_suffix("").exists():
                path.unlink()

    async def settle(self, job: str) -> None:
        """Bring a job that a crash or a fault left under way to the state that is safe to say."""
        try:
            record = await self.read(Index.get, job)
        except NotFound:
            return
        own = self._own_attempt(record)
        match record.state:
            case State.PREPARED | State.COMMITTED:
                event = Event.ABANDON if record.state is State.PREPARED else Event.NOTHING_SENT
                proof = partial(prove_nothing_sent, ballot=own.ballot, order=own.order, releaser=own.releaser)
                await self.change(
                    Index.move, job, event, Step("interrupted", INTERRUPTED), order=own.order, ballot=own.ballot,
                    vote=proof if own.order else None,
                    news=self.news_of(record, "nothing-sent"),
                )  # fmt: skip
            case State.SENDING:
                step = Step("lost-track", LOST_TRACK)
                await self.change(Index.move, job, Event.LOST_TRACK, step, order=own.order, ballot=own.ballot)

    def _own_attempt(self, record: Record) -> Attempt:
        """This node's latest attempt to print *record*."""
        if record.last_order:
            return Attempt(record.last_ballot, record.last_order, self.node)
        # Under way in the index of a version that did not write it down: its node was the only voter.
        latest = record.vote.attempts[-1] if record.vote.attempts else Attempt(record.vote.promised, "")
        return latest if record.state is not State.PREPARED else Attempt(record.vote.promised, "")

    def news_of(self, record: Record, kind: str) -> dict[str, str]:
        """What the other holders of *record* are to be told of our latest attempt, by node."""
        if not record.last_token:
            return {}
        said = {"job": record.id, "generation": record.generation, "kind": kind, "ballot": record.last_ballot}
        message = json.dumps({**said, "order": record.last_token})
        return {node: message for node in record.holders if node != self.node}

    def _adopted(self, header: Header, node: str, vote: Vote) -> Record:
        """What the index would have kept; the header does not tell all of it."""
        context = header.context
        unclaimed = not context.owner and not context.direct_printer
        return record_of(
            header,
            node,
            expires=context.created + self._hold,
            vote=vote,
            # Only what was printed on this host has an owner by rule; of the rest nobody knows whence it came.
            host="" if context.owner else "elsewhere",
            claim_code=new_code() if unclaimed else "",
        )

    async def _adopt(self, path: Path, node: str, *, rebuilt: bool) -> None:
        """Hold a sealed file that the index does not know: the index was lost, or we crashed before its row was
        written."""
        try:
            header = await asyncio.to_thread(read_header, path)
            if header.job != path.name:
                raise SealDamaged(reason="its name is another job's")
            if await asyncio.to_thread(self.keys_path(path.name).exists):
                await self._adopt_copy(header, node, rebuilt=rebuilt)
                return
            record = self._adopted(header, node, Vote(lost=rebuilt))
        except SealNewer as error:
            log.error("%s: %s", path.name, error.sentence)
            self._foreign = True
            return
        except SealDamaged as error:
            log.error("%s: %s", path.name, error.sentence)
            await asyncio.to_thread(path.rename, path.with_suffix(".damaged"))
            return
        step = _found(rebuilt=rebuilt)
        kept = await self.change(Index.add, record, [step])
        if kept.id != path.name:
            await asyncio.to_thread(os.unlink, path)

    async def _adopt_copy(self, header: Header, node: str, *, rebuilt: bool) -> None:
        """As `_adopt`, for a job that has a key table beside its file. Raises SealDamaged."""
        try:
            kept = await asyncio.to_thread(self.keys_path(header.job).read_bytes)
            installation = Installation.model_validate_json(kept)
            table = read_table(installation.table)
        except (ValueError, StatementRefused) as error:
            raise SealDamaged(reason="its key table cannot be read") from error
        try:
            in_force = table.author == header.origin_key if table.generation == FIRST_TABLE else _proven(kept, header)
        except (ValueError, StatementRefused) as error:
            raise SealDamaged(reason="its key table is not proven") from error
        if not in_force:
            raise SealDamaged(reason="its key table was made by somebody else")
        record = replica_of(header, table, installation, node, Vote(lost=rebuilt))
        await self.change(Index.install, record, installation.table)
        if not record.replica:
            await self.change(Index.learn, record.id, _found(rebuilt=rebuilt))


def _proven(kept: bytes, header: Header) -> bool:
    """Raises ValueError, StatementRefused."""
    check_links(Opening.model_validate_json(kept).links(), header.context.origin_node)
    return True


def _found(*, rebuilt: bool) -> Step:
    text = "The index was rebuilt from the sealed file." if rebuilt else "Found after a restart."
    return Step("found-again", text)


FACTS_LOST = Step("facts", "Its pages could not be counted: this host restarted while it was coming in.")


def _waits_for(context: Context) -> str:
    if context.direct_printer:
        return f"Goes to {context.direct_printer} as soon as it can."
    return "Release it at a printer." if context.owner else "Nobody owns it yet: claim it with its code."


def record_of(
    header: Header,
    node: str,
    *,
    expires: int,
    vote: Vote,
    cups_job_id: int = 0,
    host: str = "",
    claim_code: str = "",
) -> Record:
    """What the index keeps of a sealed job. Raises SealDamaged when *node* or the cloud is no party to it."""
    context = header.context
    _, own = header.slot(node)
    _, cloud = header.slot(CLOUD)
    return Record(
        id=header.job, job_uuid=context.job_uuid, cups_job_id=cups_job_id, queue=context.queue, owner=context.owner,
        submitter=context.submitter, host=host, title=context.title, content_type=context.content_type,
        size=header.size, ticket=context.ticket, facts=None, state=State.HELD, sentence=_waits_for(context),
        created=context.created, expires=expires, direct_printer=context.direct_printer, claim_code=claim_code,
        generation=header.generation, own_key=own.key, cloud_key=cloud.key, cloud_slot=cloud.sealed, vote=vote,
        printer="", changed=float(context.created),
    )  # fmt: skip


def replica_of(header: Header, table: KeyTable, installation: Installation, node: str, vote: Vote) -> Record:
    """What *node* keeps of a job in the generation of *table*, as its holder or as an origin that holds it no more.

    Raises SealDamaged when it is neither, or file and table do not fit each other.
    """
    current = in_generation(header, table)
    pairs = [(wrap.first, wrap.second) for wrap in table.wraps]
    if pairs != list(combinations(range(len(table.slots)), 2)):
        raise SealDamaged(reason="its key table does not wrap the key for every pair")
    origin = header.context.origin_node
    away = origin == node and node not in table.holders
    record = record_of(
        header if away else current, node, expires=installation.expires, vote=vote,
        cups_job_id=installation.cups_job_id, host=installation.host, claim_code=installation.claim_code,
    )  # fmt: skip
    _, cloud = current.slot(CLOUD)
    return replace(
        record, owner=installation.owner or record.owner, generation=table.generation, holders=table.holders,
        own_key="" if away else record.own_key, cloud_key=cloud.key, cloud_slot=cloud.sealed, replica=origin != node,
    )  # fmt: skip
