"""The index of what a node holds: one SQLite file, written with ``synchronous=FULL``.

Every change of a job is one transaction that moves its state, writes its trace and queues the report to the cloud;
so none of the three can be lost or told twice without the others. The sealed files are enough to rebuild it, but for
the votes, which are then marked as lost. One thread uses an Index (`base.worker`).
"""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pullprint import __version__
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError, WrittenByNewer
from pullprint.model.facts import Facts
from pullprint.model.states import ENDED, UNDER_WAY, Event, State, follow
from pullprint.model.ticket import Ticket
from pullprint.model.votes import Attempt, Vote, burn, sent_nothing
from pullprint.vault.record import Record, Step, TracedStep
from pullprint.wire import node as wire
from pullprint.wire.types import ticket_to_dict

# fullfsync is for macOS, whose fsync(2) leaves what is written in the drive's memory; others take no notice.
_DURABLE = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON;"
_SCHEMA_1 = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY, job_uuid TEXT NOT NULL UNIQUE, cups_job_id INTEGER NOT NULL, queue TEXT NOT NULL,
    owner TEXT NOT NULL, submitter TEXT NOT NULL, host TEXT NOT NULL, title TEXT NOT NULL, content_type TEXT NOT NULL,
    size INTEGER NOT NULL, ticket TEXT NOT NULL, facts TEXT, state TEXT NOT NULL, sentence TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER NOT NULL, direct_printer TEXT NOT NULL, claim_code TEXT NOT NULL,
    generation INTEGER NOT NULL, own_key TEXT NOT NULL, cloud_key TEXT NOT NULL, cloud_slot BLOB NOT NULL,
    vote TEXT NOT NULL, printer TEXT NOT NULL, changed REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS job_by_state ON job (state, expires);
CREATE INDEX IF NOT EXISTS job_direct ON job (state) WHERE direct_printer != '';
CREATE TABLE IF NOT EXISTS trace (
    job TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, event TEXT NOT NULL, text TEXT NOT NULL,
    detail TEXT NOT NULL, PRIMARY KEY (job, seq)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS picture (job TEXT PRIMARY KEY, key BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, report TEXT NOT NULL);
"""
_UPGRADES = (_SCHEMA_1,)
"""What brings an index from each schema to the next. Those from before schemas were numbered (PRAGMA user_version is 0)
may lack the tables that came last, and have nothing else different. What is here is never changed, only added to."""
_COLUMNS = (
    "id, job_uuid, cups_job_id, queue, owner, submitter, host, title, content_type, size, ticket, facts, state, "
    "sentence, created, expires, direct_printer, claim_code, generation, own_key, cloud_key, cloud_slot, vote, "
    "printer, changed"
)
OUTBOX_BYTES = 1 << 20
"""Of reports in one request, pictures included: what a slow line carries in the time that a request may take."""
_ENDED = tuple(sorted(_state.value for _state in ENDED))


class IndexBroken(PullprintError):
    """The index of held jobs at {path} cannot be read: {reason}. The sealed jobs are untouched; start pullprintd
    with --rebuild-index."""

    code = "index-broken"


class IndexFailed(PullprintError):
    """This host could not write down what it was about to do ({reason}), so it did not do it. Held jobs are safe;
    it may be out of disk space."""

    code = "index-failed"
    http_status = 503


class Ambiguous(PullprintError):
    """Several jobs begin with {prefix}. Type a few more characters of the one that you mean."""

    code = "ambiguous"
    http_status = 409


class Index:
    """The jobs of one node."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open or make the index at *path*. Raises IndexBroken, WrittenByNewer."""
        self._clock = clock
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise IndexBroken(path=path, reason=error) from error
        try:
            self._refuse_newer(path)
            path.chmod(0o600)
            self._db.executescript(_DURABLE + "PRAGMA secure_delete=ON;")
            self._upgrade()
            if self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise IndexBroken(path=path, reason="it is damaged")
            with self._transaction():
                made = self._db.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (secrets.token_hex(8),))
                if made.rowcount:
                    self._db.execute("INSERT INTO meta VALUES ('rebuilding', '1')")
        except (sqlite3.Error, IndexFailed) as error:
            self._db.close()
            raise IndexBroken(path=path, reason=error) from error
        except BaseException:
            self._db.close()
            raise

    def _refuse_newer(self, path: Path) -> None:
        """Only reads. Raises WrittenByNewer."""
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        if schema > len(_UPGRADES):
            row = self._db.execute("SELECT value FROM meta WHERE name = 'schema_by'").fetchone()
            raise WrittenByNewer(
                what=f"The index of held jobs, {path},", version=row[0] if row else f"schema {schema}", own=__version__
            )

    def _upgrade(self) -> None:
        """Bring the schema up to date, one version in one transaction."""
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        for number, script in enumerate(_UPGRADES[schema:], schema + 1):
            # Not as a parameter, which executescript does not take; the version is our own.
            made_by = f"INSERT OR REPLACE INTO meta VALUES ('schema_by', '{__version__}');"
            self._db.executescript(f"BEGIN IMMEDIATE; {script} {made_by} PRAGMA user_version = {number}; COMMIT;")

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def epoch(self) -> str:
        """Names this index; a rebuilt one has another."""
        return str(self._db.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0])

    def add(self, record: Record, steps: Iterable[Step]) -> Record:
        """Hold *record*; when its job-uuid is held already, nothing changes and that record is returned."""
        with self._transaction():
            known = self.by_uuid(record.job_uuid)
            if known:
                return known
            self._write(record)
            self._report(_job_report(record))
            for step in steps:
                self._trace(record.id, step)
        return record

    def get(self, job: str) -> Record:
        """The record of *job*. Raises NotFound."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM job WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise NotFound(what="job")
        return _record(row)

    def by_uuid(self, job_uuid: str) -> Record | None:
        """The record of the job with that job-uuid, ended or not."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM job WHERE job_uuid = ?", (job_uuid,)).fetchone()
        return _record(row) if row else None

    def find(self, prefix: str, mine: Callable[[Record], bool]) -> Record:
        """The only one of the caller's jobs whose id begins with *prefix*. Raises NotFound, Ambiguous."""
        if not prefix or not all(char in "0123456789abcdef" for char in prefix):
            raise NotFound(what="job")
        # No LIMIT: other people's jobs must not push one of the caller's out of sight, or two would look like one.
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM job WHERE id >= ? AND id < ?", (prefix, prefix + "g"))
        found = [record for record in map(_record, rows) if mine(record)]
        waiting = [record for record in found if record.state not in ENDED] or found
        if not waiting:
            raise NotFound(what="job")
        if len(waiting) > 1:
            raise Ambiguous(prefix=prefix)
        return waiting[0]

    def jobs(self, *, ended_since: float = float("inf")) -> list[Record]:
        """All jobs that are not ended, and those that ended after *ended_since*; newest first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM job WHERE state NOT IN (?, ?, ?) OR changed > ? ORDER BY created DESC, id",
            (*_ENDED, ended_since),
        )
        return [_record(row) for row in rows]

    def in_states(self, *states: State) -> list[Record]:
        """The jobs in any of *states*."""
        marks = ", ".join("?" * len(states))
        return [
            _record(row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM job WHERE state IN ({marks})", states)
        ]

    def direct_held(self) -> list[Record]:
        """The held jobs of direct queues; cheap, however many others are held."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM job WHERE state = ? AND direct_printer != ''", (State.HELD,))
        return [_record(row) for row in rows]

    def expired(self, now: float) -> list[Record]:
        """Jobs whose time is over at *now* and that may end."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM job WHERE state IN (?, ?) AND expires <= ?",
            (State.HELD, State.UNCERTAIN, int(now)),
        )
        return [_record(row) for row in rows]

    def move(
        self,
        job: str,
        event: Event,
        step: Step,
        *,
        order: str = "",
        ballot: int = 0,
        vote: Vote | None = None,
        printer: str | None = None,
        pages: int | None = None,
    ) -> Record:
        """Let *event* happen to *job*: state, trace and report in one durable transaction.

        *step* tells it, also as the job's sentence. Raises WrongState when the table of states has no such move.
        """
        with self._transaction():
            before = self.get(job)
            record = replace(
                before,
                state=follow(before.state, event),
                sentence=step.text,
                vote=vote or before.vote,
                printer=before.printer if printer is None else printer,
                changed=self._clock.now(),
            )
            self._write(record)
            if record.state in ENDED:
                self._db.execute("DELETE FROM picture WHERE job = ?", (job,))
            self._trace(job, step)
            self._report(_state_report(record, order, ballot, pages))
        return record

    def note(self, job: str, step: Step) -> Record:
        """Tell something of *job* that does not move it."""
        with self._transaction():
            record = replace(self.get(job), sentence=step.text)
            self._write(record)
            self._trace(job, step)
            self._report(_state_report(record, "", 0))
        return record

    def progress(self, job: str, sentence: str, pages: int | None = None) -> Record:
        """Tell how far *job* has got, without a place in its trace; *pages* came out so far."""
        with self._transaction():
            record = replace(self.get(job), sentence=sentence)
            self._write(record)
            self._report(_state_report(record, "", 0, pages))
        return record

    def refuse(self, job: str, step: Step, order: str, ballot: int) -> Record:
        """Tell why *order* was refused before any vote, and see to it that its *ballot* can never be used."""
        with self._transaction():
            before = self.get(job)
            record = replace(before, sentence=step.text, vote=burn(before.vote, ballot))
            self._write(record)
            self._trace(job, step)
            self._report(_state_report(record, order, ballot))
        return record

    def learn(
        self,
        job: str,
        step: Step,
        *,
        facts: Facts | None = None,
        owner: str | None = None,
        picture: tuple[bytes, wire.PictureReport] | None = None,
    ) -> Record:
        """Keep what became known of *job*: its *facts*, its *owner*, the key of its *picture*, and report that itself.

        A job that has ended meanwhile has no picture any more.
        """
        with self._transaction():
            record = self.get(job)
            if facts is not None:
                record = replace(record, facts=facts)
            if owner is not None:
                record = replace(record, owner=owner, claim_code="", sentence=step.text)
            self._write(record)
            self._trace(job, step)
            self._report(_job_report(record))
            if picture is not None and record.state not in ENDED:
                key, report = picture
                self._db.execute("INSERT OR REPLACE INTO picture VALUES (?, ?)", (job, key))
                self._report(report)
        return record

    def picture_keys(self, jobs: Iterable[str]) -> dict[str, bytes]:
        """The keys of the pictures of those of *jobs* that are held and have one."""
        keys = {}
        for job in jobs:
            for (key,) in self._db.execute("SELECT key FROM picture WHERE job = ?", (job,)):
                keys[job] = bytes(key)
        return keys

    def report_again(self, job: str) -> None:
        """Queue the whole of *job*, trace included, for a cloud that does not know it."""
        with self._transaction():
            try:
                record = self.get(job)
            except NotFound:
                return
            self._report(_job_report(record))
            for traced in self.trace(job):
                self._report(_trace_report(job, traced))

    def trace(self, job: str, after: int = -1) -> list[TracedStep]:
        """The steps of *job* that follow step *after*."""
        rows = self._db.execute(
            "SELECT seq, at, event, text, detail FROM trace WHERE job = ? AND seq > ? ORDER BY seq",
            (job, after),
        )
        return [TracedStep(seq, at, Step(event, text, json.loads(detail))) for seq, at, event, text, detail in rows]

    def rebuilding(self) -> bool:
        """Whether this index is new, and not every sealed file that was there before it has been taken in."""
        return self._db.execute("SELECT 1 FROM meta WHERE name = 'rebuilding'").fetchone() is not None

    def rebuilt(self) -> None:
        """Every sealed file has been taken in."""
        with self._transaction():
            self._db.execute("DELETE FROM meta WHERE name = 'rebuilding'")

    def last_event(self) -> int:
        """The highest number that a report of this epoch ever had."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return int(row[0]) if row else 0

    def lose_votes(self) -> None:
        """This index is an old copy: nothing in it vouches for what came after. It gets a new epoch."""
        with self._transaction():
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (secrets.token_hex(8),))
            for record in self.jobs():
                self._write(replace(record, vote=replace(record.vote, lost=True)))

    def unreported(self) -> int:
        """How many reports the cloud has not acknowledged."""
        return int(self._db.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def outbox(self, limit: int) -> list[tuple[int, str]]:
        """The oldest reports with their numbers, as JSON; one at least, and no more than `OUTBOX_BYTES`."""
        reports: list[tuple[int, str]] = []
        size = 0
        for n, report in self._db.execute("SELECT n, report FROM outbox ORDER BY n LIMIT ?", (limit,)):
            size += len(report)
            if reports and size > OUTBOX_BYTES:
                break
            reports.append((n, report))
        return reports

    def acknowledge(self, n: int) -> None:
        """The cloud has stored every report up to *n*."""
        with self._transaction():
            self._db.execute("DELETE FROM outbox WHERE n <= ?", (n,))

    def forget_ended(self, before: float) -> list[str]:
        """Drop the rows of jobs that ended before then; their job ids, whose files may go too."""
        with self._transaction():
            jobs = [
                str(row[0])
                for row in self._db.execute(
                    "SELECT id FROM job WHERE state IN (?, ?, ?) AND changed < ? LIMIT 1000",
                    (*_ENDED, before),
                )
            ]
            for job in jobs:
                self._db.execute("DELETE FROM trace WHERE job = ?", (job,))
                self._db.execute("DELETE FROM job WHERE id = ?", (job,))
        return jobs

    def keys_in_use(self) -> set[str]:
        """This node's day keys that a job still needs."""
        rows = self._db.execute("SELECT DISTINCT own_key FROM job WHERE state NOT IN (?, ?, ?)", _ENDED)
        return {str(row[0]) for row in rows}

    def counts(self) -> dict[str, int]:
        """Jobs by state, those without an owner as ``unclaimed``, and the documents' bytes as ``bytes``."""
        result = {str(s): int(n) for s, n in self._db.execute("SELECT state, count(*) FROM job GROUP BY state")}
        row = self._db.execute(
            "SELECT count(*) FILTER (WHERE owner = '' AND direct_printer = ''), total(size) FROM job "
            "WHERE state NOT IN (?, ?, ?)",
            _ENDED,
        ).fetchone()
        return result | {"unclaimed": int(row[0]), "bytes": int(row[1])}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise IndexFailed(reason=error) from error

    def _write(self, record: Record) -> None:
        # On its id only: OR REPLACE would also delete whatever other job has the same job-uuid.
        marks = ", ".join("?" * len(_COLUMNS.split(",")))
        changes = ", ".join(f"{name.strip()} = excluded.{name.strip()}" for name in _COLUMNS.split(",")[1:])
        self._db.execute(
            f"INSERT INTO job ({_COLUMNS}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}", _row(record)
        )

    def _trace(self, job: str, step: Step) -> None:
        (seq,) = self._db.execute("SELECT coalesce(max(seq) + 1, 0) FROM trace WHERE job = ?", (job,)).fetchone()
        traced = TracedStep(seq, self._clock.now(), step)
        self._db.execute(
            "INSERT INTO trace VALUES (?, ?, ?, ?, ?, ?)",
            (job, seq, traced.at, step.event, step.text, json.dumps(step.detail)),
        )
        self._report(_trace_report(job, traced))

    def _report(self, report: wire.Report) -> None:
        self._db.execute("INSERT INTO outbox (report) VALUES (?)", (report.model_dump_json(),))


def _job_report(record: Record) -> wire.JobReport:
    return wire.JobReport(
        job=record.id, job_uuid=record.job_uuid, cups_job_id=record.cups_job_id, queue=record.queue, owner=record.owner,
        submitter=record.submitter, host=record.host, title=record.title, content_type=record.content_type,
        size=record.size, ticket=record.ticket, facts=record.facts, state=record.state, sentence=record.sentence,
        created=record.created, expires=record.expires, direct_printer=record.direct_printer,
        claim_code=record.claim_code, generation=record.generation, ballot=record.vote.promised,
        cloud_key=record.cloud_key, cloud_slot=record.cloud_slot,
    )  # fmt: skip


def _state_report(record: Record, order: str, ballot: int, pages: int | None = None) -> wire.StateReport:
    return wire.StateReport(
        job=record.id,
        state=record.state,
        sentence=record.sentence,
        order=order,
        ballot=ballot,
        nothing_sent=ballot > 0 and record.state not in UNDER_WAY and sent_nothing(record.vote, ballot),
        pages=pages,
    )


def _trace_report(job: str, traced: TracedStep) -> wire.TraceReport:
    step = traced.step
    return wire.TraceReport(job=job, seq=traced.seq, at=traced.at, event=step.event, text=step.text, detail=step.detail)


def _row(record: Record) -> tuple[object, ...]:
    values: dict[str, Any] = {name.strip(): getattr(record, name.strip()) for name in _COLUMNS.split(",")}
    values["ticket"] = json.dumps(ticket_to_dict(record.ticket))
    values["facts"] = json.dumps(record.facts.to_dict()) if record.facts else None
    values["vote"] = json.dumps(asdict(record.vote))
    return tuple(values.values())


def _record(row: tuple[Any, ...]) -> Record:
    values = dict(zip((name.strip() for name in _COLUMNS.split(",")), row, strict=True))
    ticket, vote = json.loads(values["ticket"]), json.loads(values["vote"])
    values["ticket"] = Ticket(ticket["copies"], tuple((name, value) for name, value in ticket["options"]))
    values["facts"] = Facts.from_dict(json.loads(values["facts"])) if values["facts"] else None
    values["state"] = State(values["state"])
    values["vote"] = Vote(vote["promised"], tuple(Attempt(**attempt) for attempt in vote["attempts"]), vote["lost"])
    return Record(**values)
