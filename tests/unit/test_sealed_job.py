"""The sealed job: what goes in comes out, and nothing else ever does."""

import io
import os
import resource
import secrets
import struct
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from tests.unit.making import DAY_KEY, LIMIT, Parties

from pullprint.base.errors import TooLarge
from pullprint.model.job import new_job_id
from pullprint.model.ticket import Ticket
from pullprint.vault import header as layout
from pullprint.vault import keys, sealing
from pullprint.vault.header import CHUNK, TAG, Header, SealDamaged, payload_length
from pullprint.vault.opening import OpenJob, read_header
from pullprint.vault.parts import PartRefused, open_for_release, open_part, seal_for_release
from pullprint.wire.node import CLOUD

JOB = "00112233445566778899aabbccddeeff"
MIB = 1 << 20


@pytest.fixture
def parties() -> Parties:
    return Parties()


def refused(parties: Parties, path: Path, job: str = JOB) -> str:
    """Why the job at *path* does not open; nothing of it may have come out."""
    with pytest.raises((SealDamaged, PartRefused)) as error:
        parties.open(path, job)
    return error.value.sentence


def payload(path: Path) -> tuple[bytes, list[bytes]]:
    """The header of a sealed file, and its chunks."""
    data = path.read_bytes()
    length = layout.read_length(data)
    return data[:length], [data[at : at + CHUNK + TAG] for at in range(length, len(data), CHUNK + TAG)]


def resigned(parties: Parties, header: Header) -> bytes:
    """*header* as its origin node itself would sign it, its MAC unchanged."""
    return replace(header, signature=parties.identity.sign(header.body() + header.mac)).encode()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, MIB - 1, MIB, MIB + 1, MIB + 65_536])
def test_a_document_of_any_size_around_a_chunks_end_comes_out_as_it_went_in(
    parties: Parties, tmp_path: Path, size: int
) -> None:
    document = secrets.token_bytes(size)
    header = parties.seal(tmp_path / "job", document, job=JOB)
    assert header.size == size
    assert (tmp_path / "job").stat().st_size == len(header.encode()) + payload_length(size)
    assert parties.open(tmp_path / "job", JOB) == document
    assert read_header(tmp_path / "job") == header
    assert (tmp_path / "job").stat().st_mode & 0o777 == 0o600
    assert document[:64] not in (tmp_path / "job").read_bytes() or size < 64


def test_a_reader_that_trickles_changes_nothing(parties: Parties, tmp_path: Path) -> None:
    document = secrets.token_bytes(200_001)
    source = io.BytesIO(document)

    def trickle(buffer: memoryview) -> int:
        return source.readinto(buffer[:777])

    sealing.seal(
        trickle, tmp_path / "job", job=JOB, context=parties.context(), parties=parties.parties,
        identity=parties.identity, limit=LIMIT,
    )  # fmt: skip
    assert parties.open(tmp_path / "job", JOB) == document


def test_any_two_of_three_parties_open_it_and_none_alone(tmp_path: Path) -> None:
    parties = Parties(others=1)
    header = parties.seal(tmp_path / "job", b"secret", job=JOB)
    for pair in combinations(parties.private, 2):
        assert parties.open(tmp_path / "job", JOB, *pair) == b"secret"
    for name in parties.private:
        with pytest.raises(SealDamaged):
            parties.open(tmp_path / "job", JOB, name)
        number, _ = header.slot(name)
        with pytest.raises(SealDamaged):
            keys.unwrap(header, {number: parties.part(header, name)})


def test_one_partys_part_in_the_place_of_both_opens_nothing(parties: Parties, tmp_path: Path) -> None:
    header = parties.seal(tmp_path / "job", b"secret", job=JOB)
    for name in parties.private:
        part = parties.part(header, name)
        with pytest.raises(SealDamaged):
            keys.unwrap(header, {0: part, 1: part})


def test_one_wrong_part_of_three_does_not_keep_the_other_two_from_opening_it(tmp_path: Path) -> None:
    parties = Parties(others=1)
    header = parties.seal(tmp_path / "job", b"secret", job=JOB)
    by_slot = {header.slot(name)[0]: parties.part(header, name) for name in parties.private}
    good = keys.unwrap(header, by_slot)
    for wrong in by_slot:
        assert keys.unwrap(header, by_slot | {wrong: bytes(32)}) == good


def test_every_flipped_byte_of_a_header_is_found_before_a_part_is_asked_for(parties: Parties, tmp_path: Path) -> None:
    header = parties.seal(tmp_path / "job", b"secret", job=JOB)
    encoded = header.encode()
    for position in range(len(encoded)):
        altered = bytearray(encoded)
        altered[position] ^= 1 << position % 8
        with pytest.raises(SealDamaged):
            layout.decode(bytes(altered))


def test_a_header_that_the_origin_node_itself_altered_later_does_not_pass_the_mac(
    parties: Parties, tmp_path: Path
) -> None:
    path = tmp_path / "job"
    header = parties.seal(path, b"secret", job=JOB)
    rest = path.read_bytes()[len(header.encode()) :]
    lies = (
        replace(header, context=parties.context(owner="mallory@example.com")),
        replace(header, size=5),
        replace(header, tags_digest=bytes(32)),
        replace(header, commitment=bytes(32)),
        replace(header, salt=bytes(32)),
        replace(header, generation=2),
        replace(header, slots=header.slots[::-1]),
        replace(header, mac=bytes(32)),
    )
    for lie in lies:
        path.write_bytes(resigned(parties, lie) + rest)
        refused(parties, path)


def test_a_data_key_that_the_header_does_not_commit_to_is_refused(parties: Parties, tmp_path: Path) -> None:
    """GCM would let one file be made that opens to two documents under two keys; the commitment does not."""
    header = parties.seal(tmp_path / "job", b"secret", job=JOB)
    by_slot = {header.slot(name)[0]: parties.part(header, name) for name in parties.private}
    pair = [by_slot[0], by_slot[1]]
    other = secrets.token_bytes(32)
    forged = replace(header, wraps=keys.wrap_pairs(other, pair, header.salt, JOB, header.generation))
    forged = replace(forged, mac=keys.header_mac(other, forged))
    with pytest.raises(SealDamaged, match="commits"):
        keys.unwrap(forged, by_slot)


def test_chunks_that_are_moved_dropped_repeated_or_added_are_found_before_the_first_is_handed_out(
    parties: Parties, tmp_path: Path
) -> None:
    path = tmp_path / "job"
    parties.seal(path, secrets.token_bytes(3 * CHUNK + 5), job=JOB)
    start, chunks = payload(path)
    a, b, c, last = chunks
    arrangements: dict[str, list[bytes]] = {
        "reordered": [b, a, c, last],
        "dropped": [a, c, last],
        "first dropped": [b, c, last],
        "last dropped": [a, b, c],
        "repeated": [a, a, c, last],
        "added": [a, b, c, last, last],
        "cut": [a, b, c, last[:-1]],
        "one byte more": [a, b, c, last + b"\0"],
        "empty": [],
        "flipped": [a, b, bytes((c[0] ^ 1,)) + c[1:], last],
        "tag flipped": [a, b, c[:-1] + bytes((c[-1] ^ 1,)), last],
    }
    for name, arrangement in arrangements.items():
        path.write_bytes(start + b"".join(arrangement))
        assert "damaged" in refused(parties, path), name


def test_chunks_of_another_job_under_the_same_parties_are_not_taken(parties: Parties, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    parties.seal(one, bytes(2 * CHUNK), job=JOB)
    parties.seal(two, bytes(2 * CHUNK), job=new_job_id())
    (start, mine), (_, theirs) = payload(one), payload(two)
    one.write_bytes(start + mine[0] + theirs[1])
    refused(parties, one)


def test_headers_swapped_between_two_jobs_open_neither(parties: Parties, tmp_path: Path) -> None:
    other = new_job_id()
    parties.seal(tmp_path / "one", b"one document", job=JOB)
    parties.seal(tmp_path / "two", b"two document", job=other)
    (first, (one,)), (second, (two,)) = payload(tmp_path / "one"), payload(tmp_path / "two")
    (tmp_path / "one").write_bytes(second + one)
    (tmp_path / "two").write_bytes(first + two)
    refused(parties, tmp_path / "one")
    assert "another job" in refused(parties, tmp_path / "two", other)
    for path, job in ((tmp_path / "one", other), (tmp_path / "two", JOB)):  # also under the name that fits
        refused(parties, path, job)


def test_a_slot_opens_for_its_own_job_party_key_and_generation_only(tmp_path: Path) -> None:
    parties = Parties(others=1)
    header = parties.seal(tmp_path / "job", b"secret", job=JOB)
    slot = header.slot(CLOUD)[1]
    right = {"job": JOB, "party": CLOUD, "key": DAY_KEY, "generation": 1}
    assert open_part(slot.sealed, parties.private[CLOUD], **right) == parties.part(header, CLOUD)
    wrong = ({"job": new_job_id()}, {"party": parties.node}, {"key": "20261120-0123456789ab"}, {"generation": 2})
    for change in wrong:
        with pytest.raises(PartRefused):
            open_part(slot.sealed, parties.private[CLOUD], **(right | change))
    for name in parties.private.keys() - {CLOUD}:
        with pytest.raises(PartRefused):
            open_part(slot.sealed, parties.private[name], **right)
    for damaged in (b"", slot.sealed[:-1], slot.sealed + b"\0", bytes(len(slot.sealed))):
        with pytest.raises(PartRefused):
            open_part(damaged, parties.private[CLOUD], **right)


def test_parts_swapped_between_jobs_or_handed_over_for_another_order_open_nothing(
    parties: Parties, tmp_path: Path
) -> None:
    one = parties.seal(tmp_path / "one", b"one", job=JOB)
    two = parties.seal(tmp_path / "two", b"two", job=new_job_id())
    with pytest.raises(SealDamaged):
        keys.unwrap(one, {0: parties.part(one, parties.node), 1: parties.part(two, CLOUD)})
    public = parties.parties[0].public
    sealed = seal_for_release(parties.part(one, CLOUD), public, job=JOB, order="o1", key=DAY_KEY)
    mine = parties.private[parties.node]
    assert open_for_release(sealed, mine, job=JOB, order="o1", key=DAY_KEY) == parties.part(one, CLOUD)
    for job, order, key in ((two.job, "o1", DAY_KEY), (JOB, "o2", DAY_KEY), (JOB, "o1", "20261120-0123456789ab")):
        with pytest.raises(PartRefused):
            open_for_release(sealed, mine, job=job, order=order, key=key)
    with pytest.raises(PartRefused):  # a slot is no hand-over, although both are sealed to this key
        open_for_release(one.slot(parties.node)[1].sealed, mine, job=JOB, order=parties.node, key=DAY_KEY)


@pytest.mark.parametrize(
    "context",
    [
        b"[]", b"1", b"{}", b"null", b'"x"', b"[" * 100_000, b'{"ticket":{"copies":Infinity,"options":[]},"created":1}',
        b'{"ticket":{"copies":1e999,"options":[]},"created":1}', b'{"ticket":[1,2],"created":1}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_context_that_is_no_context_is_damage_and_no_crash(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: bytes
) -> None:
    header = parties.seal(tmp_path / "job", b"", job=JOB)
    monkeypatch.setattr(layout, "encode_context", lambda _: context)
    forged = resigned(parties, header)
    monkeypatch.undo()
    with pytest.raises(SealDamaged):
        layout.decode(forged)


@pytest.mark.parametrize(
    "change",
    [{"title": "\ud800"}, {"created": -1}, {"created": True}, {"created": 1 << 80}, {"owner": 5}, {"queue": None}],
)
def test_a_context_that_no_database_would_take_is_damage(
    parties: Parties, tmp_path: Path, change: dict[str, object]
) -> None:
    header = parties.seal(tmp_path / "job", b"", job=JOB)
    with pytest.raises(SealDamaged):
        layout.decode(resigned(parties, replace(header, context=parties.context(**change))))


def test_names_pairs_and_numbers_that_make_no_sense_are_damage(parties: Parties, tmp_path: Path) -> None:
    header = parties.seal(tmp_path / "job", b"", job=JOB)
    slot, wrap = header.slots[0], header.wraps[0]
    for lie in (
        replace(header, wraps=(wrap, wrap)),
        replace(header, wraps=(replace(wrap, first=1, second=0),)),
        replace(header, wraps=(replace(wrap, second=2),)),
        replace(header, slots=(slot,), wraps=()),
        replace(header, slots=(slot, slot)),
        replace(header, generation=0),
        replace(header, size=layout.DOCUMENT_LIMIT + 1),
    ):
        with pytest.raises(SealDamaged):
            layout.decode(resigned(parties, lie))
    at = header.body().index(slot.party.encode()) - 1
    for name in (b"\0", bytes((32,)) + b"A" * 32, bytes((32,)) + b"\n" * 32, bytes((255,)) + b"a" * 255):
        body = header.body()
        body = body[:at] + name + body[at + 33 :]
        body = body[:12] + struct.pack(">I", len(body) + 96) + body[16:]
        with pytest.raises(SealDamaged):
            layout.decode(body + header.mac + parties.identity.sign(body + header.mac))


def test_the_longest_ticket_there_is_can_be_opened_again(parties: Parties, tmp_path: Path) -> None:
    """A ticket of emoji once made a header larger than its own limit: stored, acknowledged, and never opened."""
    for value in ("🖨" * 16_383, '"' * 65_535, "é" * 32_767):
        context = parties.context(ticket=Ticket(1, (("x", value),)), title="🖨" * 255, submitter="🖨" * 255)
        sealing.seal(
            io.BytesIO(b"document").readinto, tmp_path / "job", job=JOB, context=context, parties=parties.parties,
            identity=parties.identity, limit=LIMIT,
        )  # fmt: skip
        assert parties.open(tmp_path / "job", JOB) == b"document"


def test_what_could_not_be_opened_again_is_not_sealed(parties: Parties, tmp_path: Path) -> None:
    for context, error in (
        (parties.context(title="x" * layout.CONTEXT_LIMIT), TooLarge),
        (parties.context(queue="\udcff"), SealDamaged),
        (parties.context(origin_node="0" * 32), SealDamaged),
    ):
        with pytest.raises(error):
            sealing.seal(
                io.BytesIO(b"").readinto, tmp_path / "job", job=JOB, context=context, parties=parties.parties,
                identity=parties.identity, limit=LIMIT,
            )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_document_beyond_the_limit_leaves_nothing_behind(parties: Parties, tmp_path: Path) -> None:
    parties.seal(tmp_path / "fits", bytes(MIB), limit=MIB)
    with pytest.raises(TooLarge):
        parties.seal(tmp_path / "job", bytes(MIB + 1), limit=MIB)
    assert [path.name for path in tmp_path.iterdir()] == ["fits"]


def test_a_reader_that_breaks_off_leaves_nothing_behind(parties: Parties, tmp_path: Path) -> None:
    def breaks(buffer: memoryview) -> int:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        sealing.seal(
            breaks, tmp_path / "job", job=JOB, context=parties.context(), parties=parties.parties,
            identity=parties.identity, limit=LIMIT,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("room", [0, 1, 700, 5_000, 2 * MIB, 3 * MIB])
def test_a_disk_that_fills_up_while_sealing_leaves_nothing_behind(parties: Parties, tmp_path: Path, room: int) -> None:
    """The file size limit acts as a full disk does: a short write first, then an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            parties.seal(tmp_path / "job", bytes(4 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "rename", "folder"])
def test_a_disk_that_fails_at_the_very_end_leaves_nothing_behind(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    match call:
        case "fsync":
            monkeypatch.setattr(os, "fsync", fails)
        case "rename":
            monkeypatch.setattr(Path, "rename", fails)
        case "folder":
            monkeypatch.setattr(sealing, "sync_directory", fails)
    with pytest.raises(OSError, match="Input/output"):
        parties.seal(tmp_path / "job", b"document")
    assert list(tmp_path.iterdir()) == []


def test_a_header_written_in_pieces_is_whole(parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pwrite(2) may write less than it was given; once the rest of the header stayed zero and was acknowledged."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:100], offset))
    parties.seal(tmp_path / "job", b"document", job=JOB)
    monkeypatch.undo()
    assert parties.open(tmp_path / "job", JOB) == b"document"


def test_a_link_in_the_place_of_a_sealed_file_is_not_followed(parties: Parties, tmp_path: Path) -> None:
    parties.seal(tmp_path / "real", b"document", job=JOB)
    (tmp_path / "job").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="symbolic links"):
        parties.open(tmp_path / "job", JOB)


def test_a_file_that_is_no_sealed_job_is_damage(parties: Parties, tmp_path: Path) -> None:
    for data in (b"", b"pulljob\n", b"%PDF-1.7\n" * 100, b"pulljob\n" + b"\0" * 1000, b"pulljob\n" + b"\xff" * 1000):
        (tmp_path / "job").write_bytes(data)
        refused(parties, tmp_path / "job")
        with pytest.raises(SealDamaged):
            read_header(tmp_path / "job")


def test_nothing_comes_out_of_a_closed_job(parties: Parties, tmp_path: Path) -> None:
    header = parties.seal(tmp_path / "job", b"document", job=JOB)
    by_party = {name: parties.part(header, name) for name in parties.private}
    opened = OpenJob(tmp_path / "job", JOB, lambda _: by_party)
    opened.close()
    opened.close()
    with pytest.raises((OSError, ValueError)):
        list(opened.chunks())


_GIBIBYTE = """
import os, sys
from pathlib import Path
from tests.unit.making import Parties
from pullprint.vault.opening import OpenJob
from pullprint.vault.sealing import seal

path, left = Path(sys.argv[1]), 1 << 30
parties = Parties()
def read(buffer):
    global left
    count = min(left, len(buffer))
    left -= count
    return count
header = seal(read, path, job="0" * 32, context=parties.context(), parties=parties.parties,
              identity=parties.identity, limit=1 << 31).header
by_party = {name: parties.part(header, name) for name in parties.private}
with OpenJob(path, "0" * 32, lambda _: by_party) as opened:
    total = sum(len(chunk) for chunk in opened.chunks())
path.unlink()
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(total, peak)
"""


@pytest.mark.slow
def test_a_gibibyte_is_sealed_and_opened_in_bounded_memory(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", _GIBIBYTE, tmp_path / "job"], capture_output=True, text=True, check=True, timeout=300
    ).stdout.split()
    assert int(answer[0]) == 1 << 30
    assert int(answer[1]) <= 150 * 1024, f"{answer[1]} KiB resident"
