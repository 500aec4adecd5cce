"""Key parts: one 32-byte part of a job for each party, HPKE-sealed to it, and nobody opens another's; the keys of
pictures and of uploads travel the same way.

HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; single shot. The *info* names
the purpose, the job and the party, so that a slot cannot be used for anything else.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from pullprint.base.errors import PullprintError

PART_SIZE = 32
KEY_SIZE = 32
SLOT_SIZE = 32 + PART_SIZE + 16
"""Encapsulated key, part or key, tag."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class PartRefused(PullprintError):
    """A key part of this job cannot be opened here: {reason}. The job is still held; another holder may have a
    good copy."""

    code = "part-refused"


def new_key() -> tuple[bytes, bytes]:
    """A fresh X25519 key pair: raw private and raw public half."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def public_half(private: bytes) -> bytes:
    """The raw public half of a raw private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal_part(part: bytes, public: bytes, *, job: str, party: str, key: str, generation: int) -> bytes:
    """The slot (`SLOT_SIZE` bytes) of *party* in *job*'s header: its *part*, for the holder of *key* only."""
    return _seal(part, public, _slot_info(job, party, key, generation))


def open_part(slot: bytes, private: bytes, *, job: str, party: str, key: str, generation: int) -> bytes:
    """The part in *slot*. Raises PartRefused when it is another's, another job's, or damaged."""
    return _open(slot, private, _slot_info(job, party, key, generation))


def seal_for_release(part: bytes, public: bytes, *, job: str, order: str, key: str) -> bytes:
    """A party's *part*, handed to the releaser (whose *key* has this *public* half) for one order."""
    return _seal(part, public, _release_info(job, order, key))


def open_for_release(sealed: bytes, private: bytes, *, job: str, order: str, key: str) -> bytes:
    """The part that a party handed over for *order*. Raises PartRefused."""
    return _open(sealed, private, _release_info(job, order, key))


def seal_picture_key(key: bytes, public: bytes, *, job: str) -> bytes:
    """The key of the picture of *job*, for the page view that has the private half of *public*."""
    return _seal(key, public, _info("picture", job))


def open_picture_key(sealed: bytes, private: bytes, *, job: str) -> bytes:
    """What `seal_picture_key` sealed. Raises PartRefused."""
    return _open(sealed, private, _info("picture", job))


def wrap_picture(sealed: bytes, public: bytes, *, job: str, key: str) -> bytes:
    """The sealed picture of *job* on its way to the cloud, whose *key* has this *public* half."""
    return _SUITE.encrypt(sealed, X25519PublicKey.from_public_bytes(public), _info("picture-report", job, key))


def unwrap_picture(wrapped: bytes, private: bytes, *, job: str, key: str) -> bytes:
    """What `wrap_picture` wrapped. Raises PartRefused."""
    return _decrypt(wrapped, private, _info("picture-report", job, key))


def seal_upload_key(key: bytes, public: bytes, *, upload: str) -> bytes:
    """The key of an uploaded document, for the node whose day key has this *public* half; browsers do the same."""
    return _seal(key, public, _info("upload", upload))


def open_upload_key(sealed: bytes, private: bytes, *, upload: str) -> bytes:
    """What `seal_upload_key` sealed. Raises PartRefused."""
    return _open(sealed, private, _info("upload", upload))


def _slot_info(job: str, party: str, key: str, generation: int) -> bytes:
    return _info("slot", job, party, key, str(generation))


def _release_info(job: str, order: str, key: str) -> bytes:
    return _info("release", job, order, key)


def _info(*words: str) -> bytes:
    # Lengths in front, so that no two lists of words give the same bytes.
    return b"pullprint/1" + b"".join(len(raw).to_bytes(2, "big") + raw for raw in (word.encode() for word in words))


def _seal(part: bytes, public: bytes, info: bytes) -> bytes:
    if len(part) != PART_SIZE:
        raise ValueError("a key part has 32 bytes")
    return _SUITE.encrypt(part, X25519PublicKey.from_public_bytes(public), info)


def _open(sealed: bytes, private: bytes, info: bytes) -> bytes:
    if len(sealed) != SLOT_SIZE:
        raise PartRefused(reason="it has the wrong length")
    return _decrypt(sealed, private, info)


def _decrypt(sealed: bytes, private: bytes, info: bytes) -> bytes:
    try:
        return _SUITE.decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info)
    except (InvalidTag, ValueError) as error:
        raise PartRefused(reason="it is damaged or meant for somebody else") from error
