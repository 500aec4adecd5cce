"""A picture and its key, apart and together: each half shows nothing, and neither fits another job."""

import base64
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from pullprint.vault.parts import PartRefused, new_key, open_picture_key, seal_picture_key
from pullprint.vault.picture import PictureRefused, SealedPicture, open_picture, seal_picture

JOB, OTHER = "0f" * 16, "1e" * 16
WEBP = b"RIFF\x1c\x00\x00\x00WEBPVP8 and the rest of it"
VECTOR = Path(__file__).parents[1] / "vectors" / "picture.json"


def test_what_was_sealed_opens_for_its_job_and_with_its_key_only() -> None:
    picture, again = seal_picture(WEBP, job=JOB), seal_picture(WEBP, job=JOB)
    assert open_picture(picture, job=JOB) == WEBP
    assert picture.key != again.key and picture.sealed != again.sealed
    assert WEBP not in picture.sealed and len(picture.sealed) == 12 + len(WEBP) + 16
    wrong = [
        (picture, OTHER),
        (SealedPicture(picture.sealed, again.key), JOB),
        (SealedPicture(again.sealed, picture.key), JOB),
        *((SealedPicture(picture.sealed[:length], picture.key), JOB) for length in (0, 11, 27, 28, 40)),
        *((SealedPicture(_flipped(picture.sealed, at), picture.key), JOB) for at in (0, 12, -1)),
    ]
    for sealed, job in wrong:
        with pytest.raises(PictureRefused):
            open_picture(sealed, job=job)


def test_the_layout_is_the_one_that_the_api_tells_browsers() -> None:
    picture = seal_picture(WEBP, job=JOB)
    assert AESGCM(picture.key).decrypt(picture.sealed[:12], picture.sealed[12:], JOB.encode("ascii")) == WEBP


def test_neither_half_shows_up_where_objects_are_printed() -> None:
    picture = seal_picture(WEBP, job=JOB)
    assert repr(picture) == "SealedPicture()"


def test_a_key_travels_to_one_page_view_and_for_one_job() -> None:
    key, (private, public) = os.urandom(32), new_key()
    sealed = seal_picture_key(key, public, job=JOB)
    assert open_picture_key(sealed, private, job=JOB) == key
    for private_key, job, data in [
        (new_key()[0], JOB, sealed),
        (private, OTHER, sealed),
        (private, JOB, sealed[:-1]),
        (private, JOB, _flipped(sealed, 40)),
    ]:
        with pytest.raises(PartRefused):
            open_picture_key(data, private_key, job=job)


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31)])
def test_a_public_key_that_hides_nothing_is_refused(public: bytes) -> None:
    with pytest.raises(ValueError):
        seal_picture_key(os.urandom(32), public, job=JOB)


def test_the_vector_opens_here_and_with_nothing_of_ours() -> None:
    """What a browser's code is tested against (``tests/vectors/picture.json``)."""
    vector = json.loads(VECTOR.read_text("utf-8"))
    values = {name: base64.b64decode(vector[name]) for name in ("private", "public", "key", "picture", "plain")}
    job = vector["job"]
    key = open_picture_key(values["key"], values["private"], job=job)
    assert open_picture(SealedPicture(values["picture"], key), job=job) == values["plain"]
    private = X25519PrivateKey.from_private_bytes(values["private"])
    assert private.public_key().public_bytes_raw() == values["public"]
    info = b"pullprint/1" + b"".join(len(w).to_bytes(2, "big") + w for w in (b"picture", job.encode()))
    opened = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM).decrypt(values["key"], private, info)
    assert AESGCM(opened).decrypt(values["picture"][:12], values["picture"][12:], job.encode()) == values["plain"]


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)
