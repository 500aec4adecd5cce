"""Sealing: from a document that is read once to a durable file that any two parties can open together, and none
alone."""

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pullprint.base.checkpoint import checkpoint
from pullprint.base.errors import TooLarge
from pullprint.base.files import sync_directory
from pullprint.base.platform import sync
from pullprint.model.job import Context
from pullprint.vault import keys
from pullprint.vault.header import CONTEXT_LIMIT, DOCUMENT_LIMIT, Header, Slot, decode, encode_context
from pullprint.vault.parts import PART_SIZE, seal_part
from pullprint.vault.stream import Reader, seal_stream, write_at

SALT_SIZE = 32


@dataclass(frozen=True, slots=True)
class Party:
    """Someone who gets a key part: a node or the cloud, with the public key to seal it to."""

    name: str
    key: str
    public: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A document that was sealed: the file's header, and the key, which is for memory alone."""

    header: Header
    data_key: bytes = field(repr=False)


def seal(
    read: Reader,
    path: Path,
    *,
    job: str,
    context: Context,
    parties: Sequence[Party],
    identity: Ed25519PrivateKey,
    limit: int,
) -> Sealed:
    """Seal what *read* yields into the new file *path*; durable, folder included, when this returns.

    *parties* are at least two. Raises TooLarge, OSError (a full disk …) and what *read* raises, and then leaves nothing
    behind. Blocking: call it in a thread.
    """
    header, data_key = prepare(job, context, parties, identity)
    temporary = path.with_name(f".{path.name}.new")
    target = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        key = keys.payload_key(data_key, header.salt, job, header.context_hash)
        size, digest = seal_stream(read, target, len(header.encode()), key, min(limit, DOCUMENT_LIMIT))
        header = finish(replace(header, size=size, tags_digest=digest), data_key, identity)
        checkpoint("sealing")
        encoded = header.encode()
        decode(encoded)  # what could not be opened again is never acknowledged
        write_at(target, memoryview(encoded), 0)
        sync(target)
        temporary.rename(path)
        try:
            sync_directory(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(target)
    return Sealed(header, data_key)


def prepare(
    job: str, context: Context, parties: Sequence[Party], identity: Ed25519PrivateKey, generation: int = 1
) -> tuple[Header, bytes]:
    """A header with everything but sizes, digest, MAC and signature, and the fresh data key; its length is final."""
    if len(parties) < 2:
        raise ValueError("a sealed job has at least two parties")
    if len(encode_context(context)) > CONTEXT_LIMIT:  # or it would be stored and acknowledged, and never open again
        raise TooLarge(what="The description of the job", limit=f"{CONTEXT_LIMIT >> 10} KiB")
    data_key = secrets.token_bytes(keys.DATA_KEY_SIZE)
    salt = secrets.token_bytes(SALT_SIZE)
    parts = [secrets.token_bytes(PART_SIZE) for _ in parties]
    slots = tuple(
        Slot(p.name, p.key, seal_part(part, p.public, job=job, party=p.name, key=p.key, generation=generation))
        for p, part in zip(parties, parts, strict=True)
    )
    header = Header(
        job=job,
        salt=salt,
        size=0,
        tags_digest=bytes(32),
        context=context,
        commitment=keys.commitment(data_key, salt, job),
        origin_key=identity.public_key().public_bytes_raw(),
        generation=generation,
        slots=slots,
        wraps=keys.wrap_pairs(data_key, parts, salt, job, generation),
    )
    return header, data_key


def finish(header: Header, data_key: bytes, identity: Ed25519PrivateKey) -> Header:
    """*header* with its MAC and the origin node's signature."""
    header = replace(header, mac=keys.header_mac(data_key, header))
    return replace(header, signature=identity.sign(header.body() + header.mac))
