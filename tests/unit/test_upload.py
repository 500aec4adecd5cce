"""What a browser seals is opened piece by piece, and anything but exactly that is an error."""

import secrets
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pullprint.vault.parts import PartRefused, new_key, seal_upload_key
from pullprint.vault.upload import Opener, UploadDamaged, seal_upload
from pullprint.wire.api import UPLOAD_HEAD, UPLOAD_PIECE, UPLOAD_TAG, sealed_length

ID = "0123456789abcdef0123456789abcdef"
SEALED = UPLOAD_PIECE + UPLOAD_TAG
SIZES = [0, 1, UPLOAD_PIECE - 1, UPLOAD_PIECE, UPLOAD_PIECE + 1, 3 * UPLOAD_PIECE, 3 * UPLOAD_PIECE + 7]


@pytest.fixture(scope="module")
def key() -> tuple[bytes, bytes]:
    return new_key()


def steps(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def opened(data: bytes, private: bytes, step: int = 1 << 16) -> bytes:
    opener = Opener(private, ID)
    plain = b"".join(piece for part in steps(data, step) for piece in opener.feed(part))
    return plain + opener.finish()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [10_007, SEALED, 1 << 22])
def test_what_was_sealed_comes_out_in_steps_of_any_size(key: tuple[bytes, bytes], size: int, step: int) -> None:
    document = secrets.token_bytes(size)
    sealed = b"".join(seal_upload(document, key[1], ID))
    assert len(sealed) == sealed_length(size)
    assert opened(sealed, key[0], step) == document


def test_the_bytes_are_those_of_the_contract(key: tuple[bytes, bytes]) -> None:
    secret, first, last = bytes(range(32)), b"a" * UPLOAD_PIECE, b"the end"
    cipher = AESGCM(secret)
    body = (
        seal_upload_key(secret, key[1], upload=ID)
        + cipher.encrypt(bytes(12), first, None)
        + cipher.encrypt(bytes(7) + b"\0\0\0\1\1", last, None)
    )
    assert opened(body, key[0]) == first + last


@pytest.mark.parametrize(
    "alter",
    [
        lambda s: s[:-1],
        lambda s: s[:-UPLOAD_TAG],
        lambda s: s[:UPLOAD_HEAD],
        lambda s: s[: UPLOAD_HEAD + SEALED],
        lambda s: s[: UPLOAD_HEAD + 2 * SEALED],
        lambda s: s + b"\0",
        lambda s: s + s[-30:],
        lambda s: s[:UPLOAD_HEAD] + s[UPLOAD_HEAD + SEALED :],
        lambda s: s[:UPLOAD_HEAD]
        + s[UPLOAD_HEAD + SEALED : UPLOAD_HEAD + 2 * SEALED]
        + s[UPLOAD_HEAD : UPLOAD_HEAD + SEALED]
        + s[UPLOAD_HEAD + 2 * SEALED :],
        lambda s: s[:UPLOAD_HEAD] + s[UPLOAD_HEAD : UPLOAD_HEAD + SEALED] + s[UPLOAD_HEAD:],
        lambda s: s[:200] + bytes([s[200] ^ 1]) + s[201:],
        lambda s: s[:-1] + bytes([s[-1] ^ 0x80]),
    ],
    ids=[
        "a byte short", "no last tag", "key only", "one piece only", "cut at a border", "a byte more", "more",
        "first missing", "reordered", "repeated", "flipped", "tag flipped",
    ],
)  # fmt: skip
def test_anything_else_is_damaged(key: tuple[bytes, bytes], alter: object) -> None:
    sealed = b"".join(seal_upload(secrets.token_bytes(2 * UPLOAD_PIECE + 30), key[1], ID))
    changed = alter(sealed)  # type: ignore[operator]
    assert changed != sealed
    with pytest.raises(UploadDamaged):
        opened(changed, key[0])


@pytest.mark.parametrize("sealed", [b"", b"x" * 79])
def test_too_little_for_a_key_is_damaged(key: tuple[bytes, bytes], sealed: bytes) -> None:
    with pytest.raises(UploadDamaged):
        opened(sealed, key[0])


def test_a_key_that_is_another_nodes_or_another_uploads_is_refused(key: tuple[bytes, bytes]) -> None:
    sealed = b"".join(seal_upload(b"document", key[1], ID))
    with pytest.raises(PartRefused):
        opened(sealed, new_key()[0])
    other = b"".join(seal_upload(b"document", key[1], ID[::-1]))
    with pytest.raises(PartRefused):
        opened(other, key[0])
    with pytest.raises(PartRefused):
        opened(bytes([sealed[0] ^ 1]) + sealed[1:], key[0])
