"""Generations of key parts: who holds a job changes, the sealed file does not.

The first generation stands in the file's header: the origin's part and the cloud's. Each later one is a `KeyTable`
beside the file, with fresh parts for whoever holds the job then, under which the same data key is wrapped. What a table
says is believed only as far as the data key bears it out: a wrong one opens nothing (`vault.keys.unwrap` checks the
key against the header's commitment).
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pullprint.vault import keys
from pullprint.vault.header import Header, SealDamaged, Slot, Wrap
from pullprint.vault.keyring import Keyring
from pullprint.vault.parts import PART_SIZE, SLOT_SIZE, open_for_release, open_part, seal_part
from pullprint.vault.sealing import Party
from pullprint.wire.mesh import KeySlot, KeyTable, KeyWrap, sign_table
from pullprint.wire.node import CLOUD

_PIECE = 1 << 20


def make_table(
    header: Header,
    data_key: bytes,
    holders: Sequence[Party],
    cloud: Party,
    *,
    generation: int,
    size: int,
    digest: bytes,
    identity: Ed25519PrivateKey,
) -> str:
    """The signed table of *generation*: fresh parts for *holders* and the *cloud*, any two of which open the job.

    *size* and *digest* are those of the sealed file.
    """
    parties = [*holders, cloud]
    parts = [secrets.token_bytes(PART_SIZE) for _ in parties]
    table = KeyTable(
        job=header.job,
        generation=generation,
        holders=tuple(holder.name for holder in holders),
        slots=tuple(
            KeySlot(
                party=p.name,
                key=p.key,
                sealed=seal_part(part, p.public, job=header.job, party=p.name, key=p.key, generation=generation),
            )
            for p, part in zip(parties, parts, strict=True)
        ),
        wraps=tuple(
            KeyWrap(first=wrap.first, second=wrap.second, sealed=wrap.sealed)
            for wrap in keys.wrap_pairs(data_key, parts, header.salt, header.job, generation)
        ),
        size=size,
        digest=digest,
        author=identity.public_key().public_bytes_raw(),
    )
    return sign_table(table, identity.private_bytes_raw())


def in_generation(header: Header, table: KeyTable | None) -> Header:
    """*header* with the slots and wraps of *table*; as it is without one. Raises SealDamaged."""
    if table is None:
        return header
    if table.job != header.job:
        raise SealDamaged(reason="its key table is another job's")
    parties = [slot.party for slot in table.slots]
    if len(set(parties)) != len(parties) or sorted(parties) != sorted({*table.holders, CLOUD}):
        raise SealDamaged(reason="its key table has not one part for each holder and the cloud")
    if any(len(slot.sealed) != SLOT_SIZE for slot in table.slots):
        raise SealDamaged(reason="a part in its key table has the wrong length")
    if any(not wrap.first < wrap.second < len(parties) for wrap in table.wraps):
        raise SealDamaged(reason="a wrap in its key table names no pair of slots")
    return replace(
        header,
        generation=table.generation,
        slots=tuple(Slot(slot.party, slot.key, slot.sealed) for slot in table.slots),
        wraps=tuple(Wrap(wrap.first, wrap.second, wrap.sealed) for wrap in table.wraps),
    )


def own_part(slot: Slot | KeySlot, job: str, generation: int, keyring: Keyring) -> bytes:
    """The key part in *slot*, which is that of the node whose *keyring* this is. Blocking. Raises PartRefused."""
    private = keyring.private(slot.key)
    return open_part(slot.sealed, private, job=job, party=slot.party, key=slot.key, generation=generation)


def recovered_key(
    header: Header, table: KeyTable | None, node: str, keyring: Keyring, *, part: bytes, part_key: str, order: str
) -> bytes:
    """The data key, opened with the part of *node* and the cloud's *part*, which was sealed to *part_key* for *order*.

    Blocking. Raises PartRefused, SealDamaged.
    """
    current = in_generation(header, table)
    ours, slot = current.slot(node)
    theirs, _ = current.slot(CLOUD)
    own = own_part(slot, current.job, current.generation, keyring)
    handed_over = open_for_release(part, keyring.private(part_key), job=current.job, order=order, key=part_key)
    return keys.unwrap(current, {ours: own, theirs: handed_over}, header)


def measure(path: Path) -> tuple[int, bytes]:
    """Length and SHA-256 of the sealed file at *path*. Blocking."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        piece = memoryview(bytearray(_PIECE))
        while count := file.readinto(piece):
            digest.update(piece[:count])
            size += count
    return size, digest.digest()
