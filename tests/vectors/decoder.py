"""A second implementation of reading, from docs/sealed-job.md alone: nothing of pullprint is imported here."""

import hashlib
import hmac
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FIXED = struct.Struct(">8sHHI16s32sQ32s32s32s32sIIHH")
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
TEXTS = ["content_type", "direct_printer", "job_uuid", "organisation", "origin_node", "owner", "queue", "site",
         "submitter", "title"]  # fmt: skip


class Refused(Exception):
    """The number of the check in the document that did not hold."""


@dataclass
class Job:
    """A header that passed checks 1 to 7, and the file that it begins."""

    data: bytes
    length: int
    job: bytes
    salt: bytes
    size: int
    tags_digest: bytes
    context_hash: bytes
    commitment: bytes
    generation: int
    slots: list[tuple[str, str, bytes]]
    wraps: list[tuple[int, int, bytes]]


def check(condition: object, number: int) -> None:
    if not condition:
        raise Refused(number)


def read(data: bytes, job: str) -> Job:
    """Checks 1 to 7."""
    check(len(data) >= FIXED.size, 2)
    (magic, version, chunk, length, job_id, salt, size, tags_digest, context_hash, commitment, origin, generation,
     context_length, slot_count, wrap_count) = FIXED.unpack_from(data)  # fmt: skip
    check((magic, version, chunk) == (b"pulljob\n", 1, 64) and 308 < length <= 524_288, 1)
    check(length <= len(data) and size <= 1 << 40 and context_length <= 262_144, 2)
    check(2 <= slot_count <= 16 and 1 <= generation <= 1 << 31, 2)
    position = FIXED.size

    def take(count: int) -> bytes:
        nonlocal position
        position += count
        check(position <= length, 2)
        return data[position - count : position]

    def name() -> str:
        text = take(take(1)[0]).decode("latin-1")
        check(re.fullmatch("[0-9a-z][0-9a-z-]{0,63}", text), 4)
        return text

    raw = take(context_length)
    slots = [(name(), name(), take(80)) for _ in range(slot_count)]
    wraps = [(take(1)[0], take(1)[0], take(48)) for _ in range(wrap_count)]
    check(position == length - 96, 2)
    check(hashlib.sha256(raw).digest() == context_hash, 3)
    origin_node = read_context(raw)
    pairs = [(a, b) for a, b, _ in wraps]
    check(pairs == sorted(set(pairs)) and all(a < b < slot_count for a, b in pairs), 4)
    check(len({party for party, _, _ in slots}) == slot_count, 4)
    check(hashlib.sha256(origin).hexdigest()[:32] == origin_node, 5)
    try:
        Ed25519PublicKey.from_public_bytes(origin).verify(data[length - 64 : length], data[: length - 64])
    except InvalidSignature:
        raise Refused(6) from None
    check(job_id.hex() == job, 7)
    return Job(data, length, job_id, salt, size, tags_digest, context_hash, commitment, generation, slots, wraps)


def read_context(raw: bytes) -> str:
    """Checks 3 and 4 of the context; its origin node."""
    try:
        values: dict[str, Any] = json.loads(raw)
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
        check(
            sorted(values) == sorted([*TEXTS, "created", "ticket"])
            and sorted(values["ticket"]) == ["copies", "options"],
            3,
        )
        copies, options, created = values["ticket"]["copies"], values["ticket"]["options"], values["created"]
        check(type(copies) is int and 1 <= copies <= 9999 and type(created) is int and 0 <= created <= 1 << 40, 3)
        texts = [values[name] for name in TEXTS] + [text for pair in options for text in pair]
        check(all(type(text) is str and text.encode() is not None for text in texts), 3)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Refused(3) from None
    check(canonical == raw, 4)
    return str(values["origin_node"])


def open_slot(slot: bytes, private: bytes, *, job: str, party: str, key: str, generation: int) -> bytes:
    """Check 8."""
    words = [word.encode() for word in ("slot", job, party, key, str(generation))]
    info = b"pullprint/1" + b"".join(struct.pack(">H", len(word)) + word for word in words)
    try:
        return SUITE.decrypt(slot, X25519PrivateKey.from_private_bytes(private), info)
    except (InvalidTag, ValueError):
        raise Refused(8) from None


def derive(secret: bytes, salt: bytes, purpose: bytes, bound: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, b"pullprint/1 " + purpose + b"\0" + bound).derive(secret)


def unwrap(job: Job, parts: Mapping[str, bytes]) -> bytes:
    """Checks 9 to 11; the data key."""
    for a, b, sealed in job.wraps:
        first, second = (parts.get(job.slots[number][0], b"") for number in (a, b))
        bound = job.job + struct.pack(">IBB", job.generation, a, b)
        try:
            key = AESGCM(derive(first + second, job.salt, b"wrap", bound)).decrypt(bytes(12), sealed, None)
        except InvalidTag:
            continue
        check(derive(key, job.salt, b"commitment", job.job) == job.commitment, 10)
        body = job.data[: job.length - 96]
        mac = hmac.digest(derive(key, job.salt, b"header", job.job), body, "sha256")
        check(mac == job.data[job.length - 96 : job.length - 64], 11)
        return key
    raise Refused(9)


def decrypt(job: Job, data_key: bytes) -> bytes:
    """Checks 12 and 13; the document."""
    chunks = max(1, -(-job.size // 65_536))
    check(len(job.data) == job.length + job.size + 16 * chunks, 12)
    cipher = AESGCM(derive(data_key, job.salt, b"payload", job.job + job.context_hash))
    document, tags = bytearray(), hashlib.sha256()
    for number in range(chunks):
        start = job.length + number * 65_552
        piece = job.data[start : min(start + 65_552, len(job.data))]
        nonce = number.to_bytes(11, "big") + (b"\1" if number == chunks - 1 else b"\0")
        try:
            document += cipher.decrypt(nonce, piece, None)
        except InvalidTag:
            raise Refused(13) from None
        tags.update(piece[-16:])
    check(tags.digest() == job.tags_digest, 13)
    return bytes(document)
