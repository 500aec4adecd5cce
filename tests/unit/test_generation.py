"""Who holds a job changes, the sealed file does not: any two parties of a generation open it, and nobody else's do."""

from itertools import combinations
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.making import DAY_KEY, Parties

from pullprint.model.job import new_job_id
from pullprint.vault import keys
from pullprint.vault.generation import in_generation, make_table, measure
from pullprint.vault.header import Header, SealDamaged
from pullprint.vault.opening import OpenJob, read_header
from pullprint.vault.parts import PartRefused, new_key, open_part
from pullprint.vault.sealing import Party, seal
from pullprint.wire.jws import StatementRefused
from pullprint.wire.mesh import KeyTable, read_table, sign_table
from pullprint.wire.node import CLOUD

DOCUMENT = b"%PDF-1.7 salaries" * 5_000


class Placed:
    """A sealed job of one node and the cloud, and its second generation at two others as well."""

    def __init__(self, folder: Path) -> None:
        self.origin = Parties()
        self.job, self.path = new_job_id(), folder / "job"
        spool = folder / "document"
        spool.write_bytes(DOCUMENT)
        with spool.open("rb", buffering=0) as file:
            sealed = seal(
                file.readinto, self.path, job=self.job, context=self.origin.context(), parties=self.origin.parties,
                identity=self.origin.identity, limit=1 << 30,
            )  # fmt: skip
        self.header = sealed.header
        self.private: dict[str, bytes] = {}
        self.parties = []
        for name in (self.origin.node, f"{1:032x}", f"{2:032x}", CLOUD):
            self.private[name], public = new_key()
            self.parties.append(Party(name, DAY_KEY, public))
        self.size, self.digest = measure(self.path)
        token = make_table(
            sealed.header, sealed.data_key, self.parties[:-1], self.parties[-1], generation=2, size=self.size,
            digest=self.digest, identity=self.origin.identity,
        )  # fmt: skip
        self.table = read_table(token)

    def part(self, header: Header, party: str) -> bytes:
        _, slot = header.slot(party)
        return open_part(
            slot.sealed, self.private[party], job=self.job, party=party, key=slot.key, generation=header.generation
        )

    def open(self, *names: str, table: KeyTable | None = None) -> bytes:
        def parts(header: Header) -> dict[str, bytes]:
            return {name: self.part(header, name) for name in names}

        with OpenJob(self.path, self.job, parts, table or self.table) as opened:
            return b"".join(bytes(chunk) for chunk in opened.chunks())


@pytest.fixture
def placed(tmp_path: Path) -> Placed:
    return Placed(tmp_path)


def test_any_two_parties_of_a_generation_open_it_and_none_alone(placed: Placed) -> None:
    names = [party.name for party in placed.parties]
    for pair in combinations(names, 2):
        assert placed.open(*pair) == DOCUMENT
    for alone in names:
        with pytest.raises(SealDamaged, match="no two of the key parts"):
            placed.open(alone)


def test_parts_of_two_generations_do_not_open_it_together(placed: Placed) -> None:
    first = {placed.origin.node: placed.origin.part(placed.header, placed.origin.node)}
    later = in_generation(placed.header, placed.table)
    second = placed.part(later, f"{1:032x}")
    for header in (placed.header, later):
        by_slot = {0: first[placed.origin.node], 1: second}
        with pytest.raises(SealDamaged):
            keys.unwrap(header, by_slot, placed.header)


def test_a_part_of_one_generation_cannot_be_put_into_another(placed: Placed) -> None:
    later = in_generation(placed.header, placed.table)
    _, slot = later.slot(CLOUD)
    with pytest.raises(PartRefused):
        open_part(slot.sealed, placed.private[CLOUD], job=placed.job, party=CLOUD, key=slot.key, generation=3)


def test_the_file_stays_as_it_is(placed: Placed) -> None:
    assert read_header(placed.path) == placed.header and placed.header.generation == 1
    assert measure(placed.path) == (placed.table.size, placed.table.digest)


@pytest.mark.parametrize(
    "change",
    [
        {"job": "0" * 32},
        {"holders": (f"{1:032x}",)},
        {"holders": (f"{1:032x}", f"{2:032x}", f"{3:032x}")},
        {"holders": (f"{1:032x}", f"{2:032x}", f"{2:032x}")},
    ],
)
def test_a_table_that_does_not_fit_is_refused(placed: Placed, change: dict[str, object]) -> None:
    with pytest.raises(SealDamaged):
        in_generation(placed.header, placed.table.model_copy(update=change))


def test_slots_and_wraps_that_were_swapped_open_nothing(placed: Placed) -> None:
    table = placed.table
    slots, wraps = list(table.slots), list(table.wraps)
    swapped = slots[0].model_copy(update={"sealed": slots[1].sealed})
    with pytest.raises(PartRefused):
        placed.open(slots[0].party, CLOUD, table=table.model_copy(update={"slots": (swapped, *slots[1:])}))
    twisted = wraps[0].model_copy(update={"sealed": wraps[1].sealed})
    with pytest.raises(SealDamaged):
        placed.open(slots[0].party, slots[1].party, table=table.model_copy(update={"wraps": (twisted, *wraps[1:])}))
    short = slots[0].model_copy(update={"sealed": slots[0].sealed[:-1]})
    with pytest.raises(SealDamaged, match="wrong length"):
        placed.open(slots[0].party, CLOUD, table=table.model_copy(update={"slots": (short, *slots[1:])}))


def test_a_table_is_its_authors_or_nobodys(placed: Placed) -> None:
    stranger = Ed25519PrivateKey.generate().private_bytes_raw()
    with pytest.raises(StatementRefused):
        read_table(sign_table(placed.table, stranger))
    with pytest.raises(StatementRefused):
        read_table("a.b.c")
    with pytest.raises(StatementRefused):
        read_table("no token")
