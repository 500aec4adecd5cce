"""The test vectors, against Pullprint and against a decoder that knows docs/sealed-job.md only."""

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.vectors import decoder
from tests.vectors.make import document

from pullprint.vault import header as layout
from pullprint.vault import keys
from pullprint.vault.header import SealDamaged
from pullprint.vault.opening import OpenJob, read_header
from pullprint.vault.parts import PartRefused, open_part, public_half

FOLDER = Path(__file__).parents[1] / "vectors"
STAGES = {"header": range(1, 8), "keys": range(8, 12), "payload": range(12, 14)}


def load(name: str) -> list[dict[str, Any]]:
    return list(json.loads((FOLDER / f"{name}.json").read_text("utf-8")))


POSITIVE = [pytest.param(vector, id=vector["file"]) for vector in load("positive")]
NEGATIVE = [pytest.param(vector, id=vector["name"]) for vector in load("negative")]
SLOTS = [pytest.param(vector, id=vector["reason"]) for vector in load("slots")]


def parts_of(vector: Mapping[str, Any]) -> dict[str, bytes]:
    return {party["party"]: bytes.fromhex(party["part"]) for party in vector["parties"]}


def pieced(vector: Mapping[str, Any]) -> bytes:
    base = (FOLDER / vector["base"]).read_bytes()
    return b"".join(
        bytes.fromhex(piece["hex"]) if "hex" in piece else base[piece["from"] : piece["to"]]
        for piece in vector["pieces"]
    )


@pytest.mark.parametrize("vector", POSITIVE)
def test_a_good_vector_opens_for_every_pair_of_its_parties(vector: dict[str, Any]) -> None:
    path, every = FOLDER / vector["file"], parts_of(vector)
    header = read_header(path)
    for party in vector["parties"]:
        slot = header.slot(party["party"])[1]
        assert slot.key == party["key"]
        assert public_half(bytes.fromhex(party["private"])).hex() == party["public"]
        part = open_part(
            slot.sealed, bytes.fromhex(party["private"]), job=header.job, party=slot.party, key=slot.key,
            generation=header.generation,
        )  # fmt: skip
        assert part == every[party["party"]]
    for absent in [None, *every] if len(every) > 2 else [None]:
        present = {name: part for name, part in every.items() if name != absent}
        with OpenJob(path, vector["job"], lambda _, present=present: present) as opened:
            plain = b"".join(bytes(chunk) for chunk in opened.chunks())
        assert plain == document(vector["document_size"])
        assert hashlib.sha256(plain).hexdigest() == vector["document_sha256"]


@pytest.mark.parametrize("vector", POSITIVE)
def test_every_key_of_a_good_vector_is_derived_as_written_down(vector: dict[str, Any]) -> None:
    header = read_header(FOLDER / vector["file"])
    data_key = keys.unwrap(header, dict(enumerate(parts_of(vector).values())))
    assert data_key.hex() == vector["data_key"]
    assert keys.payload_key(data_key, header.salt, header.job, header.context_hash).hex() == vector["payload_key"]
    bound = bytes.fromhex(vector["job"]) + bytes((0, 0, 0, 1, 0, 1))
    first, second = list(parts_of(vector).values())[:2]
    assert decoder.derive(first + second, header.salt, b"wrap", bound).hex() == vector["pair_key_0_1"]
    assert decoder.derive(data_key, header.salt, b"header", bound[:16]).hex() == vector["header_key"]


@pytest.mark.parametrize("vector", POSITIVE)
def test_the_document_is_enough_to_open_a_good_vector(vector: dict[str, Any]) -> None:
    job = decoder.read((FOLDER / vector["file"]).read_bytes(), vector["job"])
    private = {party["party"]: bytes.fromhex(party["private"]) for party in vector["parties"]}
    parts = {
        party: decoder.open_slot(
            sealed, private[party], job=vector["job"], party=party, key=key, generation=job.generation
        )
        for party, key, sealed in job.slots
    }
    assert parts == parts_of(vector)
    data_key = decoder.unwrap(job, parts)
    assert data_key.hex() == vector["data_key"]
    assert hashlib.sha256(decoder.decrypt(job, data_key)).hexdigest() == vector["document_sha256"]


def test_the_decoder_borrows_nothing_from_what_it_checks() -> None:
    tree = ast.parse((FOLDER / "decoder.py").read_text("utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules
    assert not [module for module in modules if module is None or module.split(".")[0] in {"pullprint", "tests"}]


@pytest.mark.parametrize("vector", NEGATIVE)
def test_a_bad_vector_is_refused_where_it_says(vector: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "job"
    path.write_bytes(pieced(vector))
    asked: list[str] = []

    def parts(_: layout.Header) -> dict[str, bytes]:
        asked.append("asked")
        return {name: bytes.fromhex(part) for name, part in vector["parts"].items()}

    with pytest.raises((SealDamaged, PartRefused)):
        OpenJob(path, vector["job"], parts)
    assert bool(asked) == (vector["stage"] != "header"), "parts are asked for on a sound header only"
    if vector["stage"] == "payload":
        header = read_header(path)
        by_slot = {header.slot(name)[0]: bytes.fromhex(part) for name, part in vector["parts"].items()}
        assert len(keys.unwrap(header, by_slot)) == 32


@pytest.mark.parametrize("vector", NEGATIVE)
def test_the_document_is_enough_to_refuse_a_bad_vector(vector: dict[str, Any]) -> None:
    parts = {name: bytes.fromhex(part) for name, part in vector["parts"].items()}
    with pytest.raises(decoder.Refused) as refused:
        job = decoder.read(pieced(vector), vector["job"])
        decoder.decrypt(job, decoder.unwrap(job, parts))
    assert refused.value.args[0] in STAGES[vector["stage"]]


@pytest.mark.parametrize("vector", SLOTS)
def test_a_slot_made_for_another_purpose_opens_for_nobody(vector: dict[str, Any]) -> None:
    slot, private = bytes.fromhex(vector["slot"]), bytes.fromhex(vector["private"])
    purpose = {name: vector[name] for name in ("job", "party", "key", "generation")}
    with pytest.raises(PartRefused):
        open_part(slot, private, **purpose)
    with pytest.raises(decoder.Refused):
        decoder.open_slot(slot, private, **purpose)


def test_the_vectors_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 200 * 1024
