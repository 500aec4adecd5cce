"""What peers send is kept only if it is what they say, theirs to send, and meant for this host."""

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.node.host import ORGANISATION, SITE, Host, Organisation

from pullprint.base.errors import NotFound, PullprintError, TooLarge
from pullprint.mesh.handlers import Incoming, Interrupted
from pullprint.model.job import Context, new_job_id
from pullprint.model.states import Event, State
from pullprint.model.ticket import Ticket
from pullprint.node import copies
from pullprint.node.copies import Copies, CopiesBusy, CopyDamaged, CopyOver, CopyRefused, NoRoomForCopy, NotAHolder
from pullprint.vault import parts
from pullprint.vault.generation import make_table
from pullprint.vault.index import Index
from pullprint.vault.record import Step
from pullprint.vault.sealing import Party, Sealed, seal
from pullprint.wire.mesh import Installation, Offer, Peer, read_table, sign_table
from pullprint.wire.node import CLOUD, PartyKey
from pullprint.wire.signature import node_id

Change = Callable[["Origin"], None]


class Pieces(Incoming):
    """What arrives; *error* at its end."""

    def __init__(self, data: bytes, size: int | None = None, error: Exception | None = None) -> None:
        self._data = data
        self.size = len(data) if size is None else size
        self._error = error

    async def __anext__(self) -> bytes:
        if not self._data:
            if self._error:
                raise self._error
            raise StopAsyncIteration
        piece, self._data = self._data[: 1 << 18], self._data[1 << 18 :]
        return piece


@dataclass
class Origin:
    """A peer with a sealed job."""

    host: Host
    root: Path
    document: bytes = b"x" * 300_000
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    job: str = field(default_factory=new_job_id)
    site: str = SITE

    def __post_init__(self) -> None:
        self.public = self.key.public_key().public_bytes_raw()
        self.peer = Peer(node=node_id(self.public), name="reception", identity=self.public)
        _, day = parts.new_key()
        self.party = Party(self.peer.node, "20261121-0123456789ab", day)
        organisation = self.host.organisation
        self.cloud = Party(CLOUD, organisation.party.key, organisation.party.public)
        context = Context(
            organisation=ORGANISATION, site=self.site, origin_node=self.peer.node, queue="pullprint", owner="",
            submitter="bob", job_uuid="0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", title="T", content_type="application/pdf",
            ticket=Ticket(1, ()), direct_printer="", created=int(self.host.clock.now()),
        )  # fmt: skip
        self.path = self.root / self.job
        self.sealed: Sealed = seal(
            io.BytesIO(self.document).readinto, self.path, job=self.job, context=context,
            parties=[self.party, self.cloud], identity=self.key, limit=1 << 30,
        )  # fmt: skip
        self.bytes = self.path.read_bytes()

    def offer(self, **changes: Any) -> Offer:
        values = {
            "size": len(self.bytes), "digest": hashlib.sha256(self.bytes).digest(),
            "expires": int(self.host.clock.now()) + 3_600,
        }  # fmt: skip
        return Offer(**{**values, **changes})

    def installation(self, key: PartyKey, *, identity: Ed25519PrivateKey | None = None, **changes: Any) -> Installation:
        """The second generation, with *changes* to what its table is made of, or to its fields if it has such."""
        own = Party(self.host.identity.node, key.key, key.public)
        values: dict[str, Any] = {
            "generation": 2, "size": len(self.bytes), "digest": hashlib.sha256(self.bytes).digest(),
            "holders": [self.party, own], **changes,
        }  # fmt: skip
        token = make_table(
            self.sealed.header, self.sealed.data_key, values.pop("holders"), self.cloud, **values,
            identity=identity or self.key,
        )  # fmt: skip
        return Installation(
            table=token, expires=int(self.host.clock.now()) + 3_600, claim_code="AB12-CD34", picture_key=bytes(32)
        )

    def altered(self, installation: Installation, **changes: Any) -> Installation:
        """Signed anew by the origin after *changes* of its table's fields."""
        table = read_table(installation.table).model_copy(update=changes)
        token = sign_table(table, self.key.private_bytes_raw())
        return installation.model_copy(update={"table": token})


@pytest.fixture
async def alone(root: Path) -> AsyncIterator[Host]:
    host = Host(root, Organisation(), {})
    await host.holder.start(3_600)
    await host.join()
    yield host
    host.holder.close()


@pytest.fixture
def kept(alone: Host) -> Copies:
    return Copies(alone.settings, alone.holder, alone.site, alone.identity, alone.clock)


@pytest.fixture
def origin(alone: Host, tmp_path: Path) -> Origin:
    return Origin(alone, tmp_path)


async def sent(kept: Copies, origin: Origin) -> PartyKey:
    accepted = await kept.offer(origin.peer, origin.job, origin.offer())
    assert accepted.have == 0
    received = await kept.receive(origin.peer, origin.job, 0, Pieces(origin.bytes))
    assert (received.size, received.digest) == (len(origin.bytes), hashlib.sha256(origin.bytes).digest())
    return accepted.key


def files(host: Host) -> list[str]:
    return sorted(path.name for path in host.holder.directory.iterdir())


async def test_a_copy_is_held_once_its_key_table_is_here_and_not_before(
    alone: Host, kept: Copies, origin: Origin
) -> None:
    key = await sent(kept, origin)
    assert await alone.holder.read(Index.jobs) == []
    installation = origin.installation(key)
    for _ in range(2):
        await kept.install(origin.peer, installation)
    (record,) = await alone.holder.read(Index.jobs)
    assert record.replica and record.generation == 2 and record.claim_code == "AB12-CD34"
    assert files(alone) == sorted([origin.job, f"{origin.job}.keys"])
    assert alone.holder.path(origin.job).read_bytes() == origin.bytes
    assert await alone.holder.read(Index.picture_keys, [origin.job]) == {origin.job: bytes(32)}
    assert Installation.model_validate_json(alone.holder.keys_path(origin.job).read_bytes()).picture_key == b""
    assert (await kept.offer(origin.peer, origin.job, origin.offer())).have == len(origin.bytes)
    path, size = await kept.open_copy(origin.peer, origin.job)
    assert size == path.stat().st_size == len(origin.bytes)
    stranger = Origin(alone, origin.root)
    with pytest.raises(NotFound):
        await kept.open_copy(stranger.peer, origin.job)
    await alone.holder.end(origin.job, Event.CANCEL, Step("cancelled", "Deleted."))
    assert files(alone) == []
    for call in (kept.offer(origin.peer, origin.job, origin.offer()), kept.install(origin.peer, installation)):
        with pytest.raises(CopyOver):
            await call


async def test_what_broke_off_goes_on_where_it_was_also_after_a_restart(
    alone: Host, kept: Copies, origin: Origin
) -> None:
    await kept.offer(origin.peer, origin.job, origin.offer())
    half = len(origin.bytes) // 2
    broken = Pieces(origin.bytes[:half], len(origin.bytes), Interrupted(reason="the connection broke"))
    with pytest.raises(Interrupted):
        await kept.receive(origin.peer, origin.job, 0, broken)
    again = Copies(alone.settings, alone.holder, alone.site, alone.identity, alone.clock)
    for one in (kept, again):
        accepted = await one.offer(origin.peer, origin.job, origin.offer())
        assert accepted.have == half
    await again.receive(origin.peer, origin.job, half, Pieces(origin.bytes[half:]))
    third = Copies(alone.settings, alone.holder, alone.site, alone.identity, alone.clock)
    # All of it is here, but nobody remembers that it was checked: its last byte makes it be read again.
    accepted = await third.offer(origin.peer, origin.job, origin.offer())
    assert accepted.have == len(origin.bytes) - 1
    await third.receive(origin.peer, origin.job, accepted.have, Pieces(origin.bytes[accepted.have :]))
    await third.install(origin.peer, origin.installation(accepted.key))
    assert (await alone.record(origin.job)).state is State.HELD


async def test_a_second_transfer_takes_over_from_one_that_hangs(kept: Copies, origin: Origin) -> None:
    await kept.offer(origin.peer, origin.job, origin.offer())
    hanging, free = asyncio.Event(), asyncio.Event()

    class Hanging(Pieces):
        async def __anext__(self) -> bytes:
            if self._data:
                return await super().__anext__()
            hanging.set()
            await free.wait()
            raise StopAsyncIteration

    first = asyncio.create_task(kept.receive(origin.peer, origin.job, 0, Hanging(b"y" * 9, len(origin.bytes))))
    await hanging.wait()
    await kept.receive(origin.peer, origin.job, 0, Pieces(origin.bytes))
    free.set()
    with pytest.raises(CopyRefused):
        await first
    assert kept.path(origin.job).read_bytes() == origin.bytes


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
        lambda data: os.urandom(len(data)),
    ],
    ids=["last byte", "first byte", "context", "noise"],
)
async def test_altered_bytes_are_thrown_away(
    alone: Host, kept: Copies, origin: Origin, spoil: Callable[[bytes], bytes]
) -> None:
    await kept.offer(origin.peer, origin.job, origin.offer())
    with pytest.raises(CopyDamaged):
        await kept.receive(origin.peer, origin.job, 0, Pieces(spoil(origin.bytes)))
    assert files(alone) == []
    with pytest.raises(NotFound):
        await kept.receive(origin.peer, origin.job, 0, Pieces(origin.bytes))


@pytest.mark.parametrize("change", ["noise", "other job", "longer", "newer"])
async def test_what_is_as_offered_and_yet_no_sealed_file_of_that_job_is_thrown_away(
    alone: Host, kept: Copies, origin: Origin, change: str
) -> None:
    other = Origin(alone, origin.root)
    data = {
        "noise": os.urandom(5_000), "other job": other.bytes, "longer": origin.bytes + b"more",
        "newer": origin.bytes[:8] + b"\0\x09" + origin.bytes[10:],
    }[change]  # fmt: skip
    await kept.offer(origin.peer, origin.job, origin.offer(size=len(data), digest=hashlib.sha256(data).digest()))
    with pytest.raises(CopyDamaged):
        await kept.receive(origin.peer, origin.job, 0, Pieces(data))
    assert files(alone) == []


async def test_more_or_less_than_was_offered_is_not_even_read(alone: Host, kept: Copies, origin: Origin) -> None:
    await kept.offer(origin.peer, origin.job, origin.offer())
    for offset, size in ((0, len(origin.bytes) + 1), (0, 5), (1, len(origin.bytes)), (7, len(origin.bytes) - 7)):
        with pytest.raises(CopyRefused):
            await kept.receive(origin.peer, origin.job, offset, Pieces(b"", size))
    stranger = Origin(alone, origin.root)
    with pytest.raises(NotFound):
        await kept.receive(stranger.peer, origin.job, 0, Pieces(origin.bytes))


async def test_offers_that_cannot_be_taken_are_refused(
    alone: Host, kept: Copies, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(alone.clock.now())
    for expires in (now - 1, now + 40 * 86_400):
        with pytest.raises(CopyRefused):
            await kept.offer(origin.peer, origin.job, origin.offer(expires=expires))
    with pytest.raises(TooLarge):
        await kept.offer(origin.peer, origin.job, origin.offer(size=1 << 40))
    object.__setattr__(alone.settings, "store_limit_mib", 1)
    with pytest.raises(NoRoomForCopy):
        await kept.offer(origin.peer, origin.job, origin.offer(size=2 << 20))
    assert await kept.room() == 1 << 20
    object.__setattr__(alone.settings, "store_limit_mib", 0)
    object.__setattr__(alone.settings, "disk_reserve_mib", 1 << 30)
    assert await kept.room() == 0
    with pytest.raises(NoRoomForCopy):
        await kept.offer(origin.peer, origin.job, origin.offer())
    object.__setattr__(alone.settings, "disk_reserve_mib", 0)
    object.__setattr__(alone.settings, "role", "client")
    with pytest.raises(NotAHolder):
        await kept.offer(origin.peer, origin.job, origin.offer())
    object.__setattr__(alone.settings, "role", "normal")
    monkeypatch.setattr(copies, "UNFINISHED", 3)
    for _ in range(3):
        await kept.offer(origin.peer, new_job_id(), origin.offer())
    with pytest.raises(CopiesBusy):
        await kept.offer(origin.peer, origin.job, origin.offer())


async def test_a_table_that_is_not_the_origins_word_makes_no_holder(alone: Host, kept: Copies, origin: Origin) -> None:
    key = await sent(kept, origin)
    good = origin.installation(key)
    stranger = Origin(alone, origin.root)
    _, other_day = parts.new_key()
    other = Party("0" * 32, "20261121-0123456789ab", other_day)
    own = Party(alone.identity.node, key.key, key.public)
    bad: dict[str, tuple[Peer, Installation]] = {
        "signed by a stranger who sends it": (stranger.peer, origin.installation(key, identity=stranger.key)),
        "signed by a stranger": (origin.peer, origin.installation(key, identity=stranger.key)),
        "passed on by a stranger": (stranger.peer, good),
        "without us": (origin.peer, origin.installation(key, holders=[origin.party, other])),
        "us twice": (origin.peer, origin.altered(good, holders=(alone.identity.node, alone.identity.node))),
        "a later generation": (origin.peer, origin.installation(key, generation=3)),
        "of other bytes": (origin.peer, origin.installation(key, digest=bytes(32))),
        "of another length": (origin.peer, origin.installation(key, size=5)),
        "of another job": (origin.peer, origin.altered(good, job=stranger.job)),
        "our part sealed to another": (
            origin.peer, origin.installation(key, holders=[origin.party, Party(own.name, own.key, other_day)]),
        ),
        "our part to a key that we lack": (
            origin.peer, origin.installation(key, holders=[origin.party, Party(own.name, other.key, other_day)]),
        ),
        "without a pair": (origin.peer, origin.altered(good, wraps=read_table(good.table).wraps[1:])),
        "a holder without a part": (origin.peer, origin.altered(good, slots=read_table(good.table).slots[1:])),
        "expired": (origin.peer, good.model_copy(update={"expires": 1})),
        "altered on its way": (origin.peer, good.model_copy(update={"table": good.table[:-4] + "AAAA"})),
        "no table": (origin.peer, good.model_copy(update={"table": "x"})),
    }  # fmt: skip
    for what, (peer, installation) in bad.items():
        with pytest.raises(PullprintError):
            await kept.install(peer, installation)
        assert await alone.holder.read(Index.jobs) == [], what
    await kept.install(origin.peer, good)
    assert len(await alone.holder.read(Index.jobs)) == 1


async def test_another_sites_job_makes_no_holder(alone: Host, kept: Copies, tmp_path: Path) -> None:
    origin = Origin(alone, tmp_path, site="elsewhere")
    key = await sent(kept, origin)
    with pytest.raises(CopyRefused):
        await kept.install(origin.peer, origin.installation(key))
    assert await alone.holder.read(Index.jobs) == []


async def test_an_older_or_other_table_of_the_same_job_changes_nothing(
    alone: Host, kept: Copies, origin: Origin
) -> None:
    key = await sent(kept, origin)
    first, second = origin.installation(key), origin.installation(key)
    await kept.install(origin.peer, first)
    with pytest.raises(CopyRefused):
        await kept.install(origin.peer, second)
    assert await alone.holder.read(Index.key_table, origin.job) == first.table

    def later(index: Index) -> None:
        index._db.execute("UPDATE job SET generation = 5")

    await alone.holder.read(later)
    with pytest.raises(CopyRefused):
        await kept.install(origin.peer, first)
    assert (await alone.record(origin.job)).generation == 5


async def test_a_table_without_a_copy_is_answered_so_that_the_copy_is_sent_again(kept: Copies, origin: Origin) -> None:
    accepted = await kept.offer(origin.peer, origin.job, origin.offer())
    with pytest.raises(NotFound):
        await kept.install(origin.peer, origin.installation(accepted.key))


async def test_copies_that_nobody_finishes_are_removed_and_complete_ones_wait_longer(
    alone: Host, kept: Copies, origin: Origin
) -> None:
    await sent(kept, origin)
    other = Origin(alone, origin.root)
    await kept.offer(other.peer, other.job, other.offer())
    broken = Pieces(other.bytes[:100], len(other.bytes), Interrupted(reason="x"))
    with pytest.raises(Interrupted):
        await kept.receive(other.peer, other.job, 0, broken)
    for seconds, left in ((3_500, 2), (3_700, 1), (90_000, 0)):
        old = alone.clock.now() - seconds
        for name in files(alone):
            os.utime(alone.holder.directory / name, (old, old))
        await kept.keep_house()
        assert len(files(alone)) == left, seconds


async def test_a_replica_is_kept_and_expires_without_a_word_to_the_cloud(
    alone: Host, kept: Copies, origin: Origin
) -> None:
    await kept.install(origin.peer, origin.installation(await sent(kept, origin)))
    alone.holder.close()
    again = Host(alone.root, alone.organisation, {})
    try:
        await again.holder.start(3_600)
        record = await again.record(origin.job)
        assert record.facts is None and not record.vote.lost, "it is told that its pages were not counted"
        await again.holder.keep_house(again.clock.now() + 7_200)
        assert (await again.record(origin.job)).state is State.EXPIRED
        assert files(again) == []
        reports = [report for _, report in await again.holder.read(Index.outbox, 100)]
        assert not [report for report in reports if '"kind":"state"' in report or '"kind":"job"' in report]
    finally:
        again.holder.close()


async def test_a_crash_between_file_and_index_leaves_a_holder(alone: Host, kept: Copies, origin: Origin) -> None:
    installation = origin.installation(await sent(kept, origin))
    kept.path(origin.job).rename(alone.holder.path(origin.job))
    alone.holder.keys_path(origin.job).write_text(installation.model_dump_json())
    (alone.holder.directory / f"{'0' * 32}.keys").write_text("left over")
    alone.holder.close()
    again = Host(alone.root, alone.organisation, {})
    try:
        await again.holder.start(3_600)
        record = await again.record(origin.job)
        assert record.replica and record.generation == 2 and not record.vote.lost
        assert f"{'0' * 32}.keys" not in files(again)
        later = Copies(again.settings, again.holder, again.site, again.identity, again.clock)
        again.site.load()
        await later.install(origin.peer, installation)
    finally:
        again.holder.close()
