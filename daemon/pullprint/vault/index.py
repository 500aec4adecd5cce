"""The index of what a node holds: one SQLite file, written with ``synchronous=FULL``.

Every change of a job is one transaction that moves its state, writes its trace and queues the report to the cloud;
so none of the three can be lost or told twice without the others. The sealed files are enough to rebuild it, but for
the votes, which are then marked as lost. One thread uses an Index (`base.worker`).
"""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pullprint import __version__
from pullprint.base.clock import Clock
from pullprint.base.errors import NotFound, PullprintError, WrittenByNewer
from pullprint.model.facts import Facts
from pullprint.model.states import ENDED, UNDER_WAY, Event, State, WrongState, follow
from pullprint.model.ticket import Ticket
from pullprint.model.votes import Acceptance, Attempt, Proposal, Refusal, Vote, burn, lose, sent_nothing
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
_SCHEMA_2 = """
ALTER TABLE job ADD COLUMN holders TEXT NOT NULL DEFAULT '[]';
ALTER TABLE job ADD COLUMN replica INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN last_order TEXT NOT NULL DEFAULT '';
ALTER TABLE job ADD COLUMN last_ballot INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN last_token TEXT NOT NULL DEFAULT '';
DROP INDEX job_direct;
CREATE INDEX job_direct ON job (state) WHERE direct_printer != '' AND replica = 0;
CREATE INDEX job_unplaced ON job (state) WHERE generation = 1;
CREATE TABLE key_table (job TEXT PRIMARY KEY, token TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE news (n INTEGER PRIMARY KEY AUTOINCREMENT, peer TEXT NOT NULL, message TEXT NOT NULL);
CREATE INDEX news_by_peer ON news (peer, n);
"""
_UPGRADES = (_SCHEMA_1, _SCHEMA_2)
"""What brings an index from each schema to the next. Those from before schemas were numbered (PRAGMA user_version is 0)
may lack the tables that came last, and have nothing else different. What is here is never changed, only added to."""
_COLUMNS = (
    "id, job_uuid, cups_job_id, queue, owner, submitter, host, title, content_type, size, ticket, facts, state, "
    "sentence, created, expires, direct_printer, claim_code, generation, own_key, cloud_key, cloud_slot, vote, "
    "printer, changed, holders, replica, last_order, "
    "last_ballot, last_token"
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


class VoteRefused(PullprintError):
    """This host cannot vote for that now ({refusal}). Nothing was printed by it; the job is still held."""

    code = "vote-refused"
    http_status = 409

    def __init__(self, refusal: Refusal, vote: Vote) -> None:
        super().__init__(refusal=refusal.value)
        self.refusal = refusal
        self.vote = vote
        """The record, unchanged."""


class OtherGeneration(PullprintError):
    """The hosts that hold this job have changed meanwhile. Nothing was printed; the job is still held, release it
    again in a moment."""

    code = "other-generation"
    http_status = 409


Cast = Callable[[Vote], Vote | Refusal]
"""A change of a voter's record: one of the functions of `model.votes` with all but the record filled in."""


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
            self._report(self._job_report(record))
            for step in steps:
                self._trace(record.id, step)
        return record

    def install(self, record: Record, table: str, picture: bytes = b"") -> Record:
        """Hold a copy: *record*, whose key table is *table* (JWS) and the key of whose picture is *picture*, if any.

        An older generation than is known changes nothing, and a vote that is known stays. The copy's origin tells the
        cloud of it.
        """
        with self._transaction():
            known = self._find(record.id)
            if known is not None and (known.generation >= record.generation or known.state in ENDED):
                return known
            if known is not None:
                record = replace(known, generation=record.generation, holders=record.holders, own_key=record.own_key,
                                 cloud_key=record.cloud_key, cloud_slot=record.cloud_slot)  # fmt: skip
            self._write(record)
            self._db.execute("INSERT OR REPLACE INTO key_table VALUES (?, ?)", (record.id, table))
            if picture:
                self._db.execute("INSERT OR REPLACE INTO picture VALUES (?, ?)", (record.id, picture))
        return record

    def regenerate(self, record: Record, table: str, step: Step) -> Record:
        """The origin's decision: *record*'s generation, holders and keys are those of *table* from now on.

        Raises WrongState unless the job is held, nothing of it is in doubt, and it is of an older generation.
        """
        with self._transaction():
            before = self.get(record.id)
            # New voters know nothing of earlier attempts, and could not doubt what may have been printed.
            settled = before.state is State.HELD and not before.vote.lost
            settled = settled and all(attempt.nothing_sent for attempt in before.vote.attempts)
            if not settled or before.generation >= record.generation:
                raise WrongState(state=before.state.value)
            after = replace(before, generation=record.generation, holders=record.holders, own_key=record.own_key,
                            cloud_key=record.cloud_key, cloud_slot=record.cloud_slot)  # fmt: skip
            self._write(after)
            self._db.execute("INSERT OR REPLACE INTO key_table VALUES (?, ?)", (record.id, table))
            self._trace(record.id, step)
            self._report(self._job_report(after))
        return after

    def open_generation(
        self, record: Record, table: str, start: Callable[[Record | None], Vote | Refusal], step: Step,
        picture: bytes = b"",
    ) -> Record:  # fmt: skip
        """A generation after the second is in force: *record*'s generation, holders and keys are those of *table*, and
        its vote is what *start* makes of what is known here. Without a key in it, this node holds it no more.

        An older generation than is known changes nothing, nor does any once the job has ended. Raises WrongState while
        it is being released, and VoteRefused.
        """
        with self._transaction():
            before = self._find(record.id)
            if before is not None and (before.generation >= record.generation or before.state in ENDED):
                return before
            if before is not None and before.state in UNDER_WAY:
                raise WrongState(state=before.state.value)
            vote = start(before)
            if isinstance(vote, Refusal):
                raise VoteRefused(vote, before.vote if before is not None else Vote())
            after = replace(record, vote=vote)
            if before is not None:
                after = replace(before, vote=vote, generation=record.generation, holders=record.holders,
                                own_key=record.own_key, cloud_key=record.cloud_key,
                                cloud_slot=record.cloud_slot)  # fmt: skip
            self._write(after)
            self._db.execute("INSERT OR REPLACE INTO key_table VALUES (?, ?)", (record.id, table))
            if not after.own_key:
                self._db.execute("DELETE FROM picture WHERE job = ?", (record.id,))
            elif picture:
                self._db.execute("INSERT OR REPLACE INTO picture VALUES (?, ?)", (record.id, picture))
            self._trace(record.id, step)
            if after.own_key:
                self._report(self._job_report(after))
        return after

    def key_table(self, job: str) -> str:
        """The JWS of the latest key table of *job*; empty in its first generation."""
        row = self._db.execute("SELECT token FROM key_table WHERE job = ?", (job,)).fetchone()
        return str(row[0]) if row else ""

    def unplaced(self) -> list[Record]:
        """The jobs of this node that nobody else holds yet."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM job WHERE generation = 1 AND state = ? ORDER BY created", (State.HELD,)
        )
        return [_record(row) for row in rows]

    def get(self, job: str) -> Record:
        """The record of *job*. Raises NotFound."""
        record = self._find(job)
        if record is None:
            raise NotFound(what="job")
        return record

    def _find(self, job: str) -> Record | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM job WHERE id = ?", (job,)).fetchone()
        return None if row is None else _record(row)

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

    def next_held(self, after: str) -> tuple[str, int]:
        """The held job of which a copy is here whose id follows *after*, beginning anew behind the last, and how many
        such there are; an empty id when there is none."""
        count, first, following = self._db.execute(
            "SELECT count(*), min(id), min(id) FILTER (WHERE id > ?) FROM job WHERE state IN (?, ?) AND own_key != ''",
            (after, State.HELD, State.UNCERTAIN),
        ).fetchone()
        return str(following or first or ""), int(count)

    def direct_held(self) -> list[Record]:
        """The held jobs of direct queues; cheap, however many others are held."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM job WHERE state = ? AND direct_printer != '' AND replica = 0", (State.HELD,)
        )
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
        then: Sequence[tuple[Event, Step]] = (),
        order: str = "",
        ballot: int = 0,
        vote: Cast | None = None,
        generation: int = 0,
        printer: str | None = None,
        pages: int | None = None,
        token: str = "",
        news: Mapping[str, str] = MappingProxyType({}),
        tell: bool = True,
        elsewhere: bool = False,
    ) -> Record:
        """Let *event*, and what is to come *then*, happen to *job*: state, vote, trace and report in one durable
        transaction.

        The last step tells it, also as the job's sentence. *token* is the JWS of *order*, where that begins. *news* are
        messages (JSON) to be brought to other nodes. Unless *tell*, the cloud hears of the steps only. Raises
        WrongState when the table of states has no such move, VoteRefused when *vote* refuses, and OtherGeneration when
        the job is not of *generation* (0: of any); nothing is changed then.
        """
        with self._transaction():
            before = self._of(job, generation)
            steps = ((event, step), *then)
            state = before.state
            for happens, _ in steps:
                state = follow(state, happens)
            record = replace(
                before,
                state=state,
                sentence=steps[-1][1].text,
                vote=_cast(before.vote, vote),
                printer=before.printer if printer is None else printer,
                changed=self._clock.now(),
                last_order=order or before.last_order,
                last_ballot=ballot if order else before.last_ballot,
                last_token=token or before.last_token,
            )
            self._write(record)
            if record.state in ENDED:
                self._db.execute("DELETE FROM picture WHERE job = ?", (job,))
                self._db.execute("DELETE FROM key_table WHERE job = ?", (job,))
            for _, told in steps:
                self._trace(job, told)
            if tell:
                self._report(_state_report(record, order, ballot, pages, elsewhere=elsewhere))
            self._db.executemany("INSERT INTO news (peer, message) VALUES (?, ?)", news.items())
        return record

    def cast(
        self, job: str, vote: Cast, step: Step | None = None, printer: str | None = None, generation: int = 0
    ) -> Record:
        """Change the vote of *job*, durably; *step* tells it, *printer* is where it is to be printed.

        Raises VoteRefused, and OtherGeneration when the job is not of *generation* (0: of any).
        """
        with self._transaction():
            before = self._of(job, generation)
            record = replace(before, vote=_cast(before.vote, vote), printer=printer or before.printer)
            if record.vote != before.vote:
                self._write(record)
                if step is not None:
                    self._trace(job, step)
        return record

    def cast_many(self, jobs: Iterable[str], vote: Callable[[Record], Vote | Refusal]) -> list[Record]:
        """Change the votes of *jobs*, all of them in one durable transaction; their records, without those that refuse
        and those that are not here."""
        changed = []
        with self._transaction():
            for job in jobs:
                before = self._find(job)
                after = before and vote(before)
                if before is None or not isinstance(after, Vote):
                    continue
                record = replace(before, vote=after)
                if record.vote != before.vote:
                    self._write(record)
                changed.append(record)
        return changed

    def _of(self, job: str, generation: int) -> Record:
        record = self.get(job)
        if generation and record.generation != generation:
            raise OtherGeneration
        return record

    def news(self, peer: str) -> tuple[int, str] | None:
        """The oldest message that waits for *peer*, with its number."""
        row = self._db.execute("SELECT n, message FROM news WHERE peer = ? ORDER BY n LIMIT 1", (peer,)).fetchone()
        return None if row is None else (int(row[0]), str(row[1]))

    def news_told(self, n: int) -> None:
        """That message has arrived, or nobody is there any more to get it."""
        with self._transaction():
            self._db.execute("DELETE FROM news WHERE n = ?", (n,))

    def news_waiting(self) -> dict[str, int]:
        """How many messages wait, by peer."""
        return {str(peer): int(n) for peer, n in self._db.execute("SELECT peer, count(*) FROM news GROUP BY peer")}

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

    def refuse(self, job: str, step: Step, order: str, ballot: int, *, elsewhere: bool = False) -> Record:
        """Tell why *order* was refused before any vote, and see to it that its *ballot* can never be used.

        *elsewhere*: another holder may be able to carry it out.
        """
        with self._transaction():
            before = self.get(job)
            # An order that comes a second time may have printed the first time: of that nothing is proven.
            used = before.vote.lost or any(attempt.order == order for attempt in before.vote.attempts)
            vote = burn(before.vote, ballot, "" if used else order)
            record = replace(before, sentence=step.text, vote=vote)
            self._write(record)
            self._trace(job, step)
            self._report(_state_report(record, order, ballot, elsewhere=elsewhere))
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
            if not record.replica:
                self._report(self._job_report(record))
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
            self._report(self._job_report(record))
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
                self._write(replace(record, vote=lose(record.vote)))

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
                for table in ("trace", "picture", "key_table"):
                    self._db.execute(f"DELETE FROM {table} WHERE job = ?", (job,))
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

    def _job_report(self, record: Record) -> wire.JobReport:
        table = self.key_table(record.id) if record.generation > 1 else ""
        return _job_report(record, table)


def _cast(vote: Vote, change: Cast | None) -> Vote:
    if change is None:
        return vote
    changed = change(vote)
    if isinstance(changed, Refusal):
        raise VoteRefused(changed, vote)
    return changed


def _job_report(record: Record, table: str) -> wire.JobReport:
    return wire.JobReport(
        job=record.id, job_uuid=record.job_uuid, cups_job_id=record.cups_job_id, queue=record.queue, owner=record.owner,
        submitter=record.submitter, host=record.host, title=record.title, content_type=record.content_type,
        size=record.size, ticket=record.ticket, facts=record.facts, state=record.state, sentence=record.sentence,
        created=record.created, expires=record.expires, direct_printer=record.direct_printer,
        claim_code=record.claim_code, generation=record.generation, ballot=record.vote.promised,
        cloud_key=record.cloud_key, cloud_slot=record.cloud_slot, table=table,
    )  # fmt: skip


def _state_report(
    record: Record, order: str, ballot: int, pages: int | None = None, *, elsewhere: bool = False
) -> wire.StateReport:
    return wire.StateReport(
        job=record.id,
        state=record.state,
        sentence=record.sentence,
        order=order,
        ballot=ballot,
        nothing_sent=ballot > 0 and record.state not in UNDER_WAY and sent_nothing(record.vote, ballot, order),
        pages=pages,
        elsewhere=elsewhere,
    )


def _trace_report(job: str, traced: TracedStep) -> wire.TraceReport:
    step = traced.step
    return wire.TraceReport(job=job, seq=traced.seq, at=traced.at, event=step.event, text=step.text, detail=step.detail)


def _row(record: Record) -> tuple[object, ...]:
    values: dict[str, Any] = {name.strip(): getattr(record, name.strip()) for name in _COLUMNS.split(",")}
    values["ticket"] = json.dumps(ticket_to_dict(record.ticket))
    values["facts"] = json.dumps(record.facts.to_dict()) if record.facts else None
    values["vote"] = json.dumps(asdict(record.vote))
    values["holders"] = json.dumps(record.holders)
    return tuple(values.values())


def _record(row: tuple[Any, ...]) -> Record:
    values = dict(zip((name.strip() for name in _COLUMNS.split(",")), row, strict=True))
    ticket, vote = json.loads(values["ticket"]), json.loads(values["vote"])
    values["ticket"] = Ticket(ticket["copies"], tuple((name, value) for name, value in ticket["options"]))
    values["facts"] = Facts.from_dict(json.loads(values["facts"])) if values["facts"] else None
    values["state"] = State(values["state"])
    values["holders"], values["replica"] = tuple(json.loads(values["holders"])), bool(values["replica"])
    values["vote"] = _vote(vote)
    return Record(**values)


def _vote(values: dict[str, Any]) -> Vote:
    """A record as `dataclasses.asdict` gave it; what an older version did not know has its default."""
    attempts = tuple(Attempt(**attempt) for attempt in values["attempts"])
    accepted = values.get("accepted")
    if accepted:
        proposal = dict(accepted["proposal"])
        proposal |= {"voters": tuple(proposal["voters"]), "start": _vote(proposal["start"])}
        accepted = Acceptance(accepted["number"], Proposal(**proposal))
    return Vote(**{**values, "attempts": attempts, "accepted": accepted})
