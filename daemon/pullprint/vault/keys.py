"""From a data key, or from two key parts, to every key that a sealed job needs.

HKDF-SHA256 (RFC 5869) throughout, salted with the job's salt; *info* is a purpose word, a zero byte, and what the
key is bound to.
"""

import hmac
from hashlib import sha256
from itertools import combinations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pullprint.vault.header import Header, SealDamaged, Wrap
from pullprint.vault.parts import PART_SIZE

DATA_KEY_SIZE = 32
_NONCE = bytes(12)  # every wrap has a key of its own


def payload_key(data_key: bytes, salt: bytes, job: str, context_hash: bytes) -> bytes:
    """The key of the payload's chunks."""
    return _derive(data_key, salt, b"payload", bytes.fromhex(job) + context_hash)


def commitment(data_key: bytes, salt: bytes, job: str) -> bytes:
    """32 bytes that only this data key gives: AES-GCM alone would let one file open under two keys."""
    return _derive(data_key, salt, b"commitment", bytes.fromhex(job))


def header_mac(data_key: bytes, header: Header) -> bytes:
    """The MAC of *header*'s body."""
    return hmac.digest(_derive(data_key, header.salt, b"header", bytes.fromhex(header.job)), header.body(), sha256)


def wrap_pairs(data_key: bytes, parts: list[bytes], salt: bytes, job: str, generation: int) -> tuple[Wrap, ...]:
    """The data key wrapped for every pair of *parts*, which stand in the order of their slots."""
    return tuple(
        Wrap(
            a,
            b,
            AESGCM(_pair_key(parts[a], parts[b], salt, job, generation, a, b)).encrypt(_NONCE, data_key, None),
        )
        for a, b in combinations(range(len(parts)), 2)
    )


def unwrap(header: Header, parts: dict[int, bytes], sealed: Header | None = None) -> bytes:
    """The data key from any two *parts*, by slot number; checked against commitment and MAC. Raises SealDamaged.

    Of more than two, one may be wrong: another pair is tried then. *header* has the slots and wraps of a generation; if
    that is a later one, *sealed* is the header as it stands in the file.
    """
    refused: SealDamaged | None = None
    for wrap in header.wraps:
        if wrap.first in parts and wrap.second in parts:
            key = _pair_key(
                parts[wrap.first],
                parts[wrap.second],
                header.salt,
                header.job,
                header.generation,
                wrap.first,
                wrap.second,
            )
            try:
                data_key = AESGCM(key).decrypt(_NONCE, wrap.sealed, None)
            except InvalidTag:
                refused = SealDamaged(reason="the key parts do not fit it")
                continue
            _check(sealed or header, data_key)
            return data_key
    raise refused or SealDamaged(reason="no two of the key parts at hand open it")


def _check(header: Header, data_key: bytes) -> None:
    if not hmac.compare_digest(commitment(data_key, header.salt, header.job), header.commitment):
        raise SealDamaged(reason="the key is not the one that it commits to")
    if not hmac.compare_digest(header_mac(data_key, header), header.mac):
        raise SealDamaged(reason="its header was altered")


def _pair_key(first: bytes, second: bytes, salt: bytes, job: str, generation: int, a: int, b: int) -> bytes:
    if len(first) != PART_SIZE or len(second) != PART_SIZE:
        raise ValueError("a key part has 32 bytes")
    return _derive(first + second, salt, b"wrap", bytes.fromhex(job) + generation.to_bytes(4, "big") + bytes((a, b)))


def _derive(secret: bytes, salt: bytes, purpose: bytes, bound_to: bytes) -> bytes:
    info = b"pullprint/1 " + purpose + b"\0" + bound_to
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)
