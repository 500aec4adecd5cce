"""A small picture of a job's first page, sealed: the ciphertext goes to the cloud, its key never leaves the holders
but sealed to a browser (`parts.seal_picture_key`). Neither alone shows anything.

AES-256-GCM: 12 bytes nonce, ciphertext, 16 bytes tag; additional data is the job's id in ASCII.
"""

import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pullprint.base.errors import PullprintError

KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16


class PictureRefused(PullprintError):
    """The picture of this job's first page is damaged or another job's. The job itself is still held."""

    code = "picture-refused"


@dataclass(frozen=True, slots=True)
class SealedPicture:
    """A sealed picture, and the key that opens it alone."""

    sealed: bytes = field(repr=False)
    key: bytes = field(repr=False)


def seal_picture(picture: bytes, *, job: str) -> SealedPicture:
    """*picture* under a fresh key, for *job*."""
    key, nonce = AESGCM.generate_key(8 * KEY_SIZE), secrets.token_bytes(NONCE_SIZE)
    return SealedPicture(nonce + AESGCM(key).encrypt(nonce, picture, job.encode("ascii")), key)


def open_picture(picture: SealedPicture, *, job: str) -> bytes:
    """What `seal_picture` sealed. Raises PictureRefused."""
    if len(picture.sealed) < NONCE_SIZE + TAG_SIZE:
        raise PictureRefused
    nonce, data = picture.sealed[:NONCE_SIZE], picture.sealed[NONCE_SIZE:]
    try:
        return AESGCM(picture.key).decrypt(nonce, data, job.encode("ascii"))
    except InvalidTag as error:
        raise PictureRefused from error
