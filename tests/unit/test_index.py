"""The index: what it acknowledged is there after anything, and nothing is told twice or left out."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.making import Parties, record

from pullprint import __version__
from pullprint.base.clock import ManualClock
from pullprint.base.errors import NotFound, WrittenByNewer
from pullprint.model.facts import Facts
from pullprint.model.states import Event, State, WrongState
from pullprint.model.votes import Attempt, Refusal, Vote, promise
from pullprint.node.holder import record_of
from pullprint.vault.index import _UPGRADES, OUTBOX_BYTES, Ambiguous, Index, IndexBroken, IndexFailed, VoteRefused
from pullprint.vault.opening import read_header
from pullprint.vault.record import Record, Step
from pullprint.wire.node import PictureReport

STEP = Step("stored", "Received.")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def index(tmp_path: Path, clock: ManualClock) -> Iterator[Index]:
    index = Index(tmp_path / "index", clock)
    yield index
    index.close()


def mine(_: Record) -> bool:
    return True


def reports(index: Index) -> list[dict[str, object]]:
    return [json.loads(report) for _, report in index.outbox(1000)]


def test_what_was_added_comes_back_field_by_field(index: Index) -> None:
    held = record(
        title="ä☃🖨", facts=Facts(pages=2, color_pages=1), cloud_slot=os.urandom(96), claim_code="7KQ2-M9XD",
        vote=Vote(3, (Attempt(1, "a", nothing_sent=True), Attempt(3, "b")), lost=True),
    )  # fmt: skip
    assert index.add(held, [STEP]) == held
    assert index.get(held.id) == held
    assert index.by_uuid(held.job_uuid) == held
    assert index.jobs() == [held]


def test_a_second_run_of_the_backend_gets_the_first_ones_job(index: Index) -> None:
    first = index.add(record(), [STEP])
    again = record(job_uuid=first.job_uuid)
    assert index.add(again, [STEP]) == first
    assert index.unreported() == 2
    with pytest.raises(NotFound):
        index.get(again.id)


def test_an_id_that_is_held_is_never_written_over_by_another_job(index: Index) -> None:
    first, second = index.add(record(), [STEP]), index.add(record(), [STEP])
    with pytest.raises(IndexFailed):
        with index._transaction():
            index._write(replace(second, job_uuid=first.job_uuid))
    assert index.get(first.id) == first
    assert index.get(second.id) == second


def test_a_move_is_state_trace_and_report_or_none_of_them(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    held = index.add(record(), [STEP])
    vote = Vote(1)
    moved = index.move(held.id, Event.PREPARE, Step("prepared", "Released."), order="o", ballot=1, vote=lambda _: vote)
    assert (moved.state, moved.vote, moved.sentence) == (State.PREPARED, vote, "Released.")
    assert [traced.step.event for traced in index.trace(held.id)] == ["stored", "prepared"]
    assert [report["kind"] for report in reports(index)] == ["job", "trace", "trace", "state"]
    monkeypatch.setattr(index, "_report", lambda _: (_ for _ in ()).throw(RuntimeError))
    with pytest.raises(RuntimeError):
        index.move(held.id, Event.COMMIT, Step("committed", "Connecting."))
    monkeypatch.undo()
    assert index.get(held.id) == moved
    assert [traced.step.event for traced in index.trace(held.id)] == ["stored", "prepared"]
    assert index.unreported() == 4


def test_a_move_that_the_table_of_states_lacks_changes_nothing(index: Index) -> None:
    held = index.add(record(), [STEP])
    with pytest.raises(WrongState):
        index.move(held.id, Event.DELIVERED, Step("printed", "Printed."))
    with pytest.raises(NotFound):
        index.move("0" * 32, Event.CANCEL, Step("cancelled", "Cancelled."))
    assert index.get(held.id) == held
    assert index.unreported() == 2


def test_only_an_attempt_that_sent_nothing_is_reported_as_proof(index: Index) -> None:
    held = index.add(record(), [STEP])
    committed = Vote(1, (Attempt(1, "o"),))
    index.move(held.id, Event.PREPARE, STEP, order="o", ballot=1, vote=lambda _: Vote(1))
    index.move(held.id, Event.COMMIT, STEP, then=[(Event.SEND, STEP)], order="o", ballot=1, vote=lambda _: committed)
    index.move(held.id, Event.LOST_TRACK, STEP, order="o", ballot=1)
    assert not any(report.get("nothing_sent") for report in reports(index))
    proof = Vote(1, (Attempt(1, "o", nothing_sent=True),))
    index.move(held.id, Event.NOTHING_SENT, STEP, order="o", ballot=1, vote=lambda _: proof)
    assert reports(index)[-1]["nothing_sent"] is True


def test_reports_leave_in_order_and_only_when_acknowledged(index: Index) -> None:
    jobs = [index.add(record(), [STEP]).id for _ in range(3)]
    sent = index.outbox(4)
    assert [n for n, _ in sent] == [1, 2, 3, 4]
    assert [json.loads(report)["job"] for _, report in sent] == [jobs[0], jobs[0], jobs[1], jobs[1]]
    assert index.outbox(4) == sent
    index.acknowledge(4)
    assert [n for n, _ in index.outbox(9)] == [5, 6]
    index.acknowledge(6)
    index.add(record(), [])
    assert [n for n, _ in index.outbox(9)] == [7], "a number is never given twice"


def test_a_prefix_finds_one_waiting_job_of_the_caller_or_says_why_not(index: Index) -> None:
    ids = ["aa00" + "0" * 28, "aa11" + "0" * 28, "bb00" + "0" * 28]
    for number, job in enumerate(ids):
        owner = "bob" if number == 1 else "alice"
        index.add(record(id=job, owner=owner), [])
    assert index.find("aa00", mine).id == ids[0]
    assert index.find("aa", lambda found: found.owner == "bob").id == ids[1]
    with pytest.raises(Ambiguous):
        index.find("aa", mine)
    for prefix in ("", "cc", "AA", "aa%", "zz", ids[0] + "0", "a'"):
        with pytest.raises(NotFound):
            index.find(prefix, mine)
    index.move(ids[0], Event.CANCEL, STEP)
    assert index.find("aa", mine).id == ids[1], "an ended job is no answer while one waits"


def test_other_peoples_jobs_do_not_make_two_of_mine_look_like_one(index: Index) -> None:
    for number in range(120):
        index.add(record(id=f"a{number:031x}", owner="bob"), [])
    for job in ("a0" + "f" * 30, "af" + "0" * 30):
        index.add(record(id=job, owner="alice"), [])
    with pytest.raises(Ambiguous):
        index.find("a", lambda found: found.owner == "alice")


def test_a_full_disk_says_so_and_the_index_works_again_afterwards(index: Index, tmp_path: Path) -> None:
    """A COMMIT that failed once left its transaction open, and with it the index useless until a restart."""
    held = index.add(record(), [STEP])
    pages = index._db.execute("PRAGMA page_count").fetchone()[0]
    index._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(IndexFailed, match="full"):
        for _ in range(100):
            index.add(record(title="x" * 255), [Step("stored", "y" * 1000)] * 20)
    index._db.execute("PRAGMA max_page_count=1000000")
    assert index.get(held.id) == held
    added = index.add(record(), [STEP])
    assert index.get(added.id) == added


def test_a_commit_that_fails_is_rolled_back(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, db: sqlite3.Connection) -> None:
            self.db = db

        def execute(self, sql: str, *args: object) -> object:
            if sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self.db.execute(sql, *args)

        def __getattr__(self, name: str) -> object:
            return getattr(self.db, name)

    monkeypatch.setattr(index, "_db", Failing(index._db))
    lost = record()
    with pytest.raises(IndexFailed):
        index.add(lost, [STEP])
    monkeypatch.undo()
    assert index.by_uuid(lost.job_uuid) is None
    assert index.add(lost, [STEP]) == lost


def test_an_index_that_is_no_index_says_what_to_do(tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "index").write_bytes(b"this is not a database" * 100)
    (tmp_path / "folder").mkdir()
    for name in ("index", "folder", "missing/index"):
        with pytest.raises(IndexBroken, match="--rebuild-index"):
            Index(tmp_path / name, clock)


def test_every_index_has_an_epoch_of_its_own_and_keeps_it(tmp_path: Path, clock: ManualClock) -> None:
    epochs = []
    for name in ("one", "one", "two"):
        index = Index(tmp_path / name, clock)
        epochs.append(index.epoch())
        index.close()
    assert epochs[0] == epochs[1] != epochs[2]


def test_only_jobs_that_wait_expire_and_only_ended_ones_are_forgotten(index: Index, clock: ManualClock) -> None:
    early = int(clock.now()) - 10
    waiting, busy, later = (
        index.add(record(expires=early), []),
        index.add(record(expires=early), []),
        index.add(record(expires=early + 1_000_000), []),
    )
    index.move(busy.id, Event.PREPARE, STEP, ballot=1, vote=lambda _: Vote(1))
    assert [found.id for found in index.expired(clock.now())] == [waiting.id]
    assert index.keys_in_use() == {waiting.own_key}
    index.move(waiting.id, Event.EXPIRE, STEP)
    assert index.forget_ended(clock.now()) == []
    clock.advance(10)
    assert index.forget_ended(clock.now()) == [waiting.id]
    assert index.trace(waiting.id) == []
    assert {found.id for found in index.jobs()} == {busy.id, later.id}
    assert index.counts()["bytes"] == 2 * 1234


def test_the_sealed_files_alone_make_the_index_again_but_for_its_votes(
    index: Index, tmp_path: Path, clock: ManualClock
) -> None:
    parties, jobs = Parties(), []
    for number in range(3):
        header = parties.seal(tmp_path / f"job{number}", b"document")
        held = record_of(header, parties.node, expires=1_780_086_400, vote=Vote(2, (Attempt(2, "o"),)))
        jobs.append(index.add(held, [STEP]))
    again = Index(tmp_path / "again", clock)
    try:
        for number in range(3):
            header = read_header(tmp_path / f"job{number}")
            again.add(record_of(header, parties.node, expires=1_780_086_400, vote=Vote(lost=True)), [STEP])
        assert {found.id: replace(found, vote=jobs[0].vote) for found in again.jobs()} == {job.id: job for job in jobs}
        assert all(promise(found.vote, 3) is Refusal.VOTE_LOST for found in again.jobs())
    finally:
        again.close()


FACTS = Step("facts", "1 page.")
KEY = b"K" * 32


def picture(job: Record, key: bytes = KEY, sealed: bytes = b"sealed picture") -> tuple[bytes, PictureReport]:
    return key, PictureReport(job=job.id, cloud_key="cloud-1", picture=sealed)


def kinds(index: Index) -> list[object]:
    return [report["kind"] for report in reports(index)]


def test_a_pictures_key_stays_here_and_the_picture_goes(index: Index, tmp_path: Path) -> None:
    held, other = index.add(record(), [STEP]), index.add(record(), [STEP])
    index.learn(held.id, FACTS, facts=Facts(1, 0), picture=picture(held))
    assert index.picture_keys([held.id, other.id, "0" * 32]) == {held.id: KEY}
    report = reports(index)[-1]
    assert report == {
        "kind": "picture", "job": held.id, "cloud_key": "cloud-1", "picture": "c2VhbGVkIHBpY3R1cmU=",
    }  # fmt: skip
    assert kinds(index)[-2:] == ["job", "picture"], "the cloud must know the job first"
    index.acknowledge(index.last_event())
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert KEY in files and b"c2VhbGVkIHBpY3R1cmU" not in _table(tmp_path), "the picture was kept here"


@pytest.mark.parametrize("event", [Event.CANCEL, Event.EXPIRE])
def test_a_pictures_key_goes_with_its_job(index: Index, tmp_path: Path, event: Event) -> None:
    held, other = index.add(record(), [STEP]), index.add(record(), [STEP])
    for job in (held, other):
        index.learn(job.id, FACTS, facts=Facts(1, 0), picture=picture(job, job.id.encode()))
    index.move(held.id, Event.PREPARE, STEP)
    index.move(held.id, Event.ABANDON, STEP)
    assert index.picture_keys([held.id]), "a release that came to nothing took the picture away"
    index.move(held.id, event, STEP)
    assert index.picture_keys([held.id, other.id]) == {other.id: other.id.encode()}
    assert "picture" not in kinds(index)[-1:]


def test_a_key_that_is_gone_is_gone_from_the_file(tmp_path: Path, clock: ManualClock) -> None:
    index = Index(tmp_path / "index", clock)
    keys = {}
    for _ in range(3):
        held = index.add(record(), [STEP])
        keys[held.id] = os.urandom(32)
        index.learn(held.id, FACTS, facts=Facts(1, 0), picture=picture(held, keys[held.id]))
    index.move(held.id, Event.CANCEL, STEP)
    index.close()
    data = (tmp_path / "index").read_bytes()
    assert {job for job, key in keys.items() if key in data} == keys.keys() - {held.id}


def test_facts_that_come_after_a_jobs_end_bring_no_picture(index: Index) -> None:
    held = index.add(record(), [STEP])
    index.move(held.id, Event.CANCEL, STEP)
    index.learn(held.id, FACTS, facts=Facts(1, 0), picture=picture(held))
    assert index.picture_keys([held.id]) == {} and "picture" not in kinds(index)


FIRST_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job (
    id TEXT PRIMARY KEY, job_uuid TEXT NOT NULL UNIQUE, cups_job_id INTEGER NOT NULL, queue TEXT NOT NULL,
    owner TEXT NOT NULL, submitter TEXT NOT NULL, host TEXT NOT NULL, title TEXT NOT NULL, content_type TEXT NOT NULL,
    size INTEGER NOT NULL, ticket TEXT NOT NULL, facts TEXT, state TEXT NOT NULL, sentence TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER NOT NULL, direct_printer TEXT NOT NULL, claim_code TEXT NOT NULL,
    generation INTEGER NOT NULL, own_key TEXT NOT NULL, cloud_key TEXT NOT NULL, cloud_slot BLOB NOT NULL,
    vote TEXT NOT NULL, printer TEXT NOT NULL, changed REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX job_by_state ON job (state, expires);
CREATE TABLE trace (
    job TEXT NOT NULL, seq INTEGER NOT NULL, at REAL NOT NULL, event TEXT NOT NULL, text TEXT NOT NULL,
    detail TEXT NOT NULL, PRIMARY KEY (job, seq)
) WITHOUT ROWID;
CREATE TABLE outbox (n INTEGER PRIMARY KEY AUTOINCREMENT, report TEXT NOT NULL);
INSERT INTO meta VALUES ('epoch', '0011223344556677');
INSERT INTO job VALUES (
    '00112233445566778899aabbccddeeff', '0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0', 7, 'pullprint', 'ada@example.com',
    'ada', 'localhost', 'a.pdf', 'application/pdf', 5, '{"copies": 1, "options": []}', NULL, 'held', 'Release it.',
    1780000000, 1780086400, '', '', 1, '20261121-0123456789ab', 'cloud-1', x'00',
    '{"promised": 1, "attempts": [{"ballot": 1, "order": "o", "nothing_sent": false}], "lost": false}', '', 1780000000.0
);
INSERT INTO trace VALUES ('00112233445566778899aabbccddeeff', 0, 1780000000.0, 'stored', 'Received.', '{}');
INSERT INTO outbox (report) VALUES ('{"kind":"state"}');
"""
"""As the very first version wrote it."""


def test_an_index_of_the_very_first_version_is_brought_up_to_date_and_goes_on(
    tmp_path: Path, clock: ManualClock
) -> None:
    with sqlite3.connect(tmp_path / "index") as old:
        old.executescript(FIRST_SCHEMA)
    old.close()
    for _ in range(2):
        index = Index(tmp_path / "index", clock)
        try:
            held = index.jobs()[0]
            assert (held.owner, held.state, held.vote.promised) == ("ada@example.com", State.HELD, 1)
            assert index.epoch() == "0011223344556677" and not index.rebuilding() and index.outbox(9)[0][0] == 1
            assert index.note(held.id, STEP).sentence == STEP.text
            index.learn(held.id, FACTS, facts=Facts(1, 0), picture=picture(held))
            assert index.picture_keys([held.id]) == {held.id: KEY}
            assert (held.holders, held.replica, index.key_table(held.id)) == ((), False, "")
        finally:
            index.close()
    with sqlite3.connect(tmp_path / "index") as now:
        assert now.execute("PRAGMA user_version").fetchone() == (len(_UPGRADES),)
        assert now.execute("SELECT value FROM meta WHERE name = 'schema_by'").fetchone() == (__version__,)
    now.close()


def test_an_upgrade_that_fails_leaves_the_index_as_it_was(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    Index(tmp_path / "index", clock).close()
    with monkeypatch.context() as patched:
        patched.setattr(
            "pullprint.vault.index._UPGRADES", (*_UPGRADES, "CREATE TABLE more (x); CREATE TABLE more (x);")
        )
        with pytest.raises(IndexBroken):
            Index(tmp_path / "index", clock)
    with sqlite3.connect(tmp_path / "index") as now:
        assert now.execute("PRAGMA user_version").fetchone() == (len(_UPGRADES),)
        assert now.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone() == (0,)
    now.close()
    Index(tmp_path / "index", clock).close()


def test_the_index_of_a_newer_version_is_refused_by_name_and_left_alone(tmp_path: Path, clock: ManualClock) -> None:
    Index(tmp_path / "index", clock).close()
    with sqlite3.connect(tmp_path / "index") as newer:
        newer.executescript("UPDATE meta SET value = '7.8.9' WHERE name = 'schema_by'; PRAGMA user_version = 99;")
    newer.close()
    before = (tmp_path / "index").read_bytes()
    with pytest.raises(WrittenByNewer, match=r"newer Pullprint \(7\.8\.9\).*Nothing was changed") as refused:
        Index(tmp_path / "index", clock)
    assert refused.value.exit_status == 78
    assert (tmp_path / "index").read_bytes() == before


def test_what_is_told_at_once_is_no_more_than_a_slow_line_carries(index: Index) -> None:
    held = index.add(record(), [STEP])
    for _ in range(60):
        index.learn(held.id, FACTS, facts=Facts(1, 0), picture=picture(held, sealed=os.urandom(24 << 10)))
    told = 0
    while batch := index.outbox(200):
        assert len(batch) == 1 or sum(len(report) for _, report in batch) <= OUTBOX_BYTES
        told += len(batch)
        index.acknowledge(batch[-1][0])
    assert told == 2 + 60 * 3
    index.learn(held.id, FACTS, facts=Facts(1, 0), picture=picture(held, sealed=bytes(OUTBOX_BYTES)))
    assert [len(index.outbox(200)), index.unreported()] == [2, 3]
    index.acknowledge(index.outbox(2)[-1][0])
    assert len(index.outbox(200)) == 1, "what is too long alone would never be told"


def _table(folder: Path) -> bytes:
    with sqlite3.connect(folder / "index") as database:
        rows = [row for name in ("job", "picture", "outbox") for row in database.execute(f"SELECT * FROM {name}")]
    database.close()
    return repr(rows).encode()


_ADDS = """
import sys
from pathlib import Path
from pullprint.base.clock import SystemClock
from pullprint.model.states import Event
from pullprint.vault.index import Index
from pullprint.vault.record import Step
from tests.unit.making import record

index = Index(Path(sys.argv[1]), SystemClock())
while True:
    held = index.add(record(), [Step("stored", "Received.")])
    print("added", held.id, flush=True)
    index.move(held.id, Event.CANCEL, Step("cancelled", "Cancelled."))
    print("moved", held.id, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 40, 41, 160])
def test_kill_9_in_the_middle_of_adding_loses_nothing_that_was_acknowledged(
    tmp_path: Path, clock: ManualClock, after: int
) -> None:
    path = tmp_path / "index"
    with subprocess.Popen([sys.executable, "-c", _ADDS, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    index = Index(path, clock)
    try:
        for what, job in acknowledged:
            found = index.get(job)
            events = [traced.step.event for traced in index.trace(job)]
            assert events == ["stored", "cancelled"][: len(events)]
            assert what == "added" or (found.state is State.CANCELLED and len(events) == 2)
        told = [report["job"] for report in reports(index) if report["kind"] == "job"]
        assert len(told) == len(set(told)) >= after // 2
        assert {job for _, job in acknowledged} <= set(told)
    finally:
        index.close()


def test_a_vote_that_refuses_changes_nothing(index: Index) -> None:
    held = index.add(record(), [STEP])
    before = reports(index)
    for call in (
        lambda: index.cast(held.id, lambda _: Refusal.OUTDATED, STEP),
        lambda: index.move(held.id, Event.PREPARE, STEP, order="o", ballot=1, vote=lambda _: Refusal.VOTE_LOST),
    ):
        with pytest.raises(VoteRefused) as refused:
            call()
        assert refused.value.vote == held.vote
    assert index.get(held.id) == held and reports(index) == before


def test_news_wait_for_each_peer_in_order_and_are_written_with_what_they_tell(index: Index) -> None:
    held = index.add(record(), [STEP])
    with pytest.raises(WrongState):
        index.move(held.id, Event.DELIVERED, STEP, news={"b": "never"})
    index.move(held.id, Event.PREPARE, STEP, news={"b": "first", "c": "first"})
    index.move(held.id, Event.ABANDON, STEP, news={"b": "second"})
    assert index.news_waiting() == {"b": 2, "c": 1}
    told = []
    while waiting := index.news("b"):
        told.append(waiting[1])
        index.news_told(waiting[0])
    assert told == ["first", "second"] and index.news_waiting() == {"c": 1}


def test_a_copy_is_told_by_its_origin_and_never_goes_back_a_generation(index: Index) -> None:
    copy = record(replica=True, generation=3, holders=("a", "b"))
    assert index.install(copy, "table 3", b"k" * 32) == copy
    assert index.install(replace(copy, generation=2, holders=("a",)), "table 2") == copy
    assert (index.key_table(copy.id), index.picture_keys([copy.id])) == ("table 3", {copy.id: b"k" * 32})
    voted = index.cast(copy.id, lambda _: Vote(4))
    newer = index.install(replace(copy, generation=4, holders=("b", "c")), "table 4")
    assert (newer.holders, newer.vote, index.key_table(copy.id)) == (("b", "c"), voted.vote, "table 4")
    assert index.unreported() == 0, "its origin tells the cloud"
    assert index.unplaced() == [] and index.direct_held() == []


def test_only_a_held_job_gets_other_holders(index: Index) -> None:
    held = index.add(record(), [STEP])
    placed = replace(held, generation=2, holders=("a", "b", "c"))
    index.move(held.id, Event.PREPARE, STEP)
    with pytest.raises(WrongState):
        index.regenerate(placed, "table", STEP)
    assert index.get(held.id).holders == () and [waits.id for waits in index.unplaced()] == []
    index.move(held.id, Event.ABANDON, STEP)
    assert [waits.id for waits in index.unplaced()] == [held.id]
    assert index.regenerate(placed, "table", STEP).holders == ("a", "b", "c")
    assert reports(index)[-1]["table"] == "table" and index.unplaced() == []
    with pytest.raises(WrongState):
        index.regenerate(placed, "another", STEP)


def test_an_order_that_comes_again_frees_nothing_of_its_first_time(index: Index) -> None:
    held = index.add(record(), [STEP])
    committed = Vote(1, (Attempt(1, "o", "n"),))
    index.move(held.id, Event.LOST_TRACK, STEP, order="o", ballot=1, vote=lambda _: committed)
    assert index.refuse(held.id, STEP, "o", 1).vote == committed
    assert index.refuse(held.id, STEP, "p", 2).vote.attempts[1:] == (Attempt(2, "p", nothing_sent=True),)


def test_new_voters_are_not_made_while_an_attempt_may_have_printed(index: Index) -> None:
    """They would know nothing of it, and it would be in doubt no more."""
    unproven = Vote(1, (Attempt(1, "o", "n"),))
    for number, vote in enumerate((unproven, Vote(lost=True))):
        held = index.add(record(vote=vote), [STEP])
        placed = replace(held, generation=2, holders=("a", "b", "c"))
        with pytest.raises(WrongState):
            index.regenerate(placed, "table", STEP)
        if number == 0:
            index.move(held.id, Event.LOST_TRACK, STEP, order="o", ballot=1)
            with pytest.raises(WrongState):
                index.regenerate(placed, "table", STEP)
            proof = Vote(1, (Attempt(1, "o", "n", nothing_sent=True),))
            index.move(held.id, Event.NOTHING_SENT, STEP, order="o", ballot=1, vote=lambda _, after=proof: after)
            assert index.regenerate(placed, "table", STEP).generation == 2
