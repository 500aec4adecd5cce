"""Pictures of first pages: they come together in the browser only, and only for the job's owner."""

import asyncio
import base64
import json
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.cloud.office import CHEAP, PASSWORD, Answer, NodeClient, Office, parts_bytes

from pullprint.cloud import housekeeping, pictures, users
from pullprint.cloud.tables import inbox, job
from pullprint.vault.parts import new_key, open_picture_key, seal_picture_key, wrap_picture
from pullprint.vault.picture import SealedPicture, open_picture, seal_picture

WEBP = b"RIFF....WEBP, as far as the cloud can tell"


class Painter:
    """A node with pictures: what `node.channel` does with them, and what it should not."""

    def __init__(self, node: NodeClient) -> None:
        self.node = node
        self.keys: dict[str, bytes] = {}
        self.asked: list[dict[str, Any]] = []

    async def hold(self, owner: str = "ada@example.com", size: int = 0) -> str:
        """A held job with a picture."""
        held = await self.node.hold(owner=owner)
        await self.picture(held, WEBP + bytes(size))
        return held

    async def picture(self, held: str, picture: bytes = WEBP) -> None:
        """Report a picture of a job."""
        sealed = seal_picture(picture, job=held)
        self.keys[held] = sealed.key
        await self.node.report(self.report(held, sealed.sealed))

    def report(self, held: str, sealed: bytes, **changes: str) -> dict[str, Any]:
        """What the cloud is told."""
        assert self.node.config is not None
        cloud = self.node.config.cloud_key
        named = {"job": held, "key": cloud.key, **changes}
        wrapped = base64.b64encode(wrap_picture(sealed, cloud.public, **named)).decode()
        return {"kind": "picture", "job": held, "cloud_key": named["key"], "picture": wrapped}

    def sealed(self, item: dict[str, Any]) -> dict[str, str]:
        """The keys that an item asks for."""
        public = parts_bytes(item["public"])
        return {
            name: base64.b64encode(seal_picture_key(self.keys[name], public, job=name)).decode()
            for name in item["jobs"]
            if name in self.keys
        }

    async def answer(self, item: dict[str, Any], **changes: Any) -> Answer:
        """Answer an item."""
        keys = {"request": item["request"], "keys": self.sealed(item), **changes}
        return await self.node.call("POST", "/node/v1/pictures", keys)

    @asynccontextmanager
    async def awake(self) -> AsyncIterator[None]:
        """Answer whatever comes."""

        async def listen() -> None:
            while True:
                for item in await self.node.poll():
                    if item["kind"] == "picture":
                        self.asked.append(item)
                        assert (await self.answer(item)).status == 204

        task = asyncio.create_task(listen())
        try:
            yield
            assert not task.done() or task.result() is None
        finally:
            task.cancel()
            await asyncio.wait([task])


async def look(office: Office, token: str, *jobs: str) -> dict[str, bytes]:
    """The pictures that a browser ends up with, opened."""
    private, public = new_key()
    body = {"public": base64.b64encode(public).decode(), "jobs": jobs}
    answer = await office.ask("POST", "/api/v1/pictures", body, token)
    assert answer.status == 200, answer
    seen = {}
    for picture in answer.body:
        key = open_picture_key(parts_bytes(picture["key"]), private, job=picture["job"])
        seen[picture["job"]] = open_picture(SealedPicture(parts_bytes(picture["picture"]), key), job=picture["job"])
    return seen


async def view(office: Office, token: str, held: str) -> dict[str, Any]:
    return dict((await office.ask("GET", f"/api/v1/jobs/{held}", token=token)).body)


def stored(office: Office) -> dict[str, bytes | None]:
    rows = office.store.transact(lambda t: t.all(select(job.c.id, job.c.picture)))
    return {row.id: row.picture for row in rows}


@pytest.fixture
async def painter(office: Office) -> Painter:
    return Painter(await office.join())


async def test_both_halves_meet_at_the_owner(office: Office, painter: Painter) -> None:
    token = await office.sign_in()
    first, second, without = await painter.hold(), await painter.hold(size=5_000), await painter.node.hold()
    assert [(await view(office, token, held))["picture"] for held in (first, second, without)] == [True, True, False]
    listed = (await office.ask("GET", "/api/v1/jobs", token=token)).body["jobs"]
    assert {row["id"] for row in listed if row["picture"]} == {first, second}
    async with painter.awake():
        begin = time.monotonic()
        seen = await look(office, token, second, without, first, first, "f" * 32)
        assert time.monotonic() - begin < 1
    assert list(seen) == [second, first] or list(seen) == [first, second]
    assert seen == {first: WEBP, second: WEBP + bytes(5_000)}
    (item,) = painter.asked
    assert sorted(item["jobs"]) == sorted([first, second]), "a node was asked for what it has not"
    assert not any(WEBP in path.read_bytes() for path in office.settings.state_dir.rglob("*") if path.is_file())


async def test_a_new_picture_is_news_to_the_owners_list(office: Office, painter: Painter) -> None:
    token, held = await office.sign_in(), await painter.node.hold()
    version = (await office.ask("GET", "/api/v1/jobs", token=token)).body["version"]
    parked = asyncio.create_task(office.ask("GET", f"/api/v1/jobs?since={version}&wait=10", token=token))
    await asyncio.sleep(0.1)
    await painter.picture(held)
    assert (await asyncio.wait_for(parked, 5)).body["jobs"][0]["picture"] is True


async def test_others_see_nothing_and_their_nodes_are_not_even_asked(office: Office, painter: Painter) -> None:
    office.store.transact(users.add, "acme", "eve@example.com", CHEAP.hash(PASSWORD))
    hers, gus = await painter.hold("eve@example.com"), await office.sign_in("gus@example.com")
    mine, nobodys = await painter.hold(), await painter.hold("")
    eve, ada = await office.sign_in("eve@example.com"), await office.sign_in()
    async with painter.awake():
        assert await look(office, gus, mine, hers, nobodys) == {}
        assert await look(office, eve, mine, nobodys) == {}
        assert painter.asked == []
        assert (await look(office, eve, mine, hers, nobodys)).keys() == {hers}
        assert (await look(office, ada, mine, hers, nobodys)).keys() == {mine}
    assert [item["jobs"] for item in painter.asked] == [[hers], [mine]]
    answer = await office.ask("POST", "/api/v1/pictures", {"public": "A" * 43 + "=", "jobs": [mine]})
    assert answer.status == 401


async def test_a_node_answers_only_what_it_was_asked(office: Office, painter: Painter) -> None:
    other, foreign = Painter(await office.join()), Painter(await office.join("globex"))
    mine, theirs, token = await painter.hold(), await other.hold(), await office.sign_in()
    looking = asyncio.create_task(look(office, token, mine, theirs))
    item, others = await painter.node.poll_for("picture"), await other.node.poll_for("picture")
    assert item["request"] == others["request"] and item["jobs"] == [mine]
    forged = base64.b64encode(secrets.token_bytes(80)).decode()
    # A stranger to this request, and one that is asked for something else: both answer for the first.
    for thief in (foreign, other):
        assert (await thief.answer(item, keys={mine: forged})).status == 204
    assert (await other.answer(others)).status == 204, "its first answer was its last"
    assert (await painter.answer(item, request="0" * 32)).status == 204
    await asyncio.sleep(0.2)
    assert not looking.done(), "somebody answered in the holder's place"
    assert (await painter.answer(item)).status == 204
    assert await looking == {mine: WEBP}
    assert (await painter.answer(item)).status == 204, "late or twice is no fault"


@pytest.mark.parametrize(
    "keys", [{}, {"f" * 32: "AAAA"}, {"job": "AAAA"}, {"job": ""}], ids=["none", "another's", "short", "empty"]
)
async def test_a_useless_answer_is_an_answer(office: Office, painter: Painter, keys: dict[str, str]) -> None:
    held, token = await painter.hold(), await office.sign_in()
    looking = asyncio.create_task(look(office, token, held))
    item = await painter.node.poll_for("picture")
    answer = await painter.answer(item, keys={held if name == "job" else name: key for name, key in keys.items()})
    assert answer.status == 204
    assert await asyncio.wait_for(looking, 1) == {}


@pytest.mark.parametrize(
    "changes",
    [{"keys": {"../x": "AAAA"}}, {"keys": {"f" * 32: "?"}}, {"keys": []}, {"request": ""}, {"keys": {f"{n:032x}": "" for n in range(33)}}],
)  # fmt: skip
async def test_a_malformed_answer_is_refused(office: Office, painter: Painter, changes: dict[str, Any]) -> None:
    body = {"request": "a", "keys": {}, **changes}
    assert (await painter.node.call("POST", "/node/v1/pictures", body)).code == "bad-request"


@pytest.mark.parametrize(
    "body",
    [
        {"public": "AAAA", "jobs": ["f" * 32]},
        {"public": base64.b64encode(bytes(32)).decode(), "jobs": []},
        {"public": base64.b64encode(bytes(32)).decode(), "jobs": ["f" * 32] * 33},
        {"public": base64.b64encode(bytes(32)).decode(), "jobs": ["' OR 1=1"]},
    ],
    ids=["no-key", "no-jobs", "too-many", "no-ids"],
)
async def test_a_malformed_question_is_refused(office: Office, body: dict[str, Any]) -> None:
    assert (await office.ask("POST", "/api/v1/pictures", body, await office.sign_in())).code == "bad-request"


async def test_those_that_sleep_are_not_waited_for_and_those_that_hang_not_long(
    office: Office, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "WAIT", 0.6)
    asleep, hangs = Painter(await office.join()), Painter(await office.join())
    missed = await asleep.hold()
    office.clock.shift = 200
    token, mine = await office.sign_in(), await painter.hold()
    async with painter.awake():
        begin = time.monotonic()
        assert await look(office, token, missed, mine) == {mine: WEBP}
        assert time.monotonic() - begin < 0.4, "a node that sleeps was waited for"
        late = await hangs.hold()
        begin = time.monotonic()
        assert await look(office, token, late, mine) == {mine: WEBP}
        assert 0.5 < time.monotonic() - begin < 2
        # What it is told when it comes back is not a question that nobody asks any more.
        office.clock.shift += 11
        await hangs.node.hold()
        assert [item["kind"] for item in await _waiting(office, hangs.node)] == []
    assert office.store.transact(lambda t: len(t.all(select(inbox).where(inbox.c.kind == "picture")))) <= 1


async def _waiting(office: Office, node: NodeClient) -> list[dict[str, Any]]:
    """What an inbox has without waiting."""
    from pullprint.cloud.inbox import waiting

    items = office.store.transact(waiting, node.id, node.since)
    return [json.loads(item.model_dump_json()) for item in items]


async def test_one_user_asks_a_few_times_at_once(
    office: Office, painter: Painter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "WAIT", 1.0)
    token, held = await office.sign_in(), await painter.hold()
    body = {"public": base64.b64encode(new_key()[1]).decode(), "jobs": [held]}
    answers = await asyncio.gather(
        *(office.ask("POST", "/api/v1/pictures", body, token) for _ in range(pictures.AT_ONCE + 3))
    )
    assert sorted(answer.status for answer in answers) == [200] * pictures.AT_ONCE + [429] * 3
    assert all("Retry-After" in answer.headers for answer in answers if answer.status == 429)
    async with painter.awake():
        assert await look(office, token, held) == {held: WEBP}


@pytest.mark.parametrize("end", ["done", "cancelled", "expired", "deleted", "deleted-late", "gone", "overdue"])
async def test_a_picture_goes_when_its_job_ends(office: Office, painter: Painter, end: str) -> None:
    token, held, kept = await office.sign_in(), await painter.hold(), await painter.hold()
    picture, other = stored(office)[held], stored(office)[kept]
    assert picture and other
    assert on_disk(office, picture) and on_disk(office, other), "the test looks in the wrong place"
    if end in ("done", "cancelled", "expired"):
        await painter.node.report_state(held, end)
    elif end == "deleted":
        assert (await office.ask("DELETE", f"/api/v1/jobs/{held}", token=token)).status == 202
    elif end == "deleted-late":
        await painter.node.report({**painter.node.job_report(), "job": held, "state": "cancelled"})
    elif end == "gone":
        for office.clock.shift in (0, 61):
            await reconcile(painter.node, kept)
    else:
        expired = update(job).where(job.c.id == held).values(expires=office.clock.now() - 2 * 86_400)
        office.store.transact(lambda t: t.run(expired) and housekeeping.end_overdue_jobs(t))
    assert stored(office) == {held: None, kept: other}
    assert not on_disk(office, picture) and on_disk(office, other)
    async with painter.awake():
        assert (await look(office, token, held, kept)).keys() == {kept}
    # It does not come back: a report that was under way is too late.
    await painter.picture(held)
    assert stored(office) == {held: None, kept: other}


def on_disk(office: Office, data: bytes) -> bool:
    """Whether the database's file has *data* somewhere, once everything is in it."""
    path = next(office.settings.state_dir.rglob("*.sqlite"))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    return data in path.read_bytes()


async def reconcile(node: NodeClient, *held: str) -> None:
    holdings = {
        "epoch": node.epoch, "version": "1", "key": json.loads(node.party_key.model_dump_json()),
        "last_event": 1_000, "jobs": [{"job": name, "state": "held"} for name in held],
    }  # fmt: skip
    assert (await node.call("POST", "/node/v1/reconcile", holdings)).status == 200


async def test_only_a_jobs_own_node_reports_its_picture_and_within_limits(office: Office, painter: Painter) -> None:
    await painter.hold()
    (held,), before = stored(office), stored(office)
    other, foreign = Painter(await office.join()), Painter(await office.join("globex"))
    for thief in (other, foreign):
        await thief.picture(held, b"something else")
        await thief.picture("f" * 32)
    await painter.picture(held, bytes(32 << 10))
    good = painter.report(held, b"sealed")
    await painter.node.report(
        {**good, "cloud_key": "cloud-19990101-00000000"},
        {**good, "picture": good["picture"][:-8] + "AAAAAAA="},
        {**good, "picture": ""},
        {**good, "picture": base64.b64encode(b"not wrapped at all, but in the clear" * 9).decode()},
        painter.report(held, b"sealed", job="f" * 32),
        painter.report(held, b"sealed", key="cloud-1"),
    )
    assert stored(office) == before
    await painter.picture(held, bytes((32 << 10) - 28 - 48))
    assert stored(office) != before
    report = {**good, "picture": base64.b64encode(bytes(1 << 17)).decode()}
    answer = await painter.node.call("POST", "/node/v1/events", painter.node.events(report))
    assert answer.code == "bad-request"
