"""An uploaded document on its way from a browser to the node that will hold it: `wire.api.UploadOffer` in bytes.

The format of the piece that is last differs from all others, so that an upload that was cut off, put together
differently or went on is an error; but only at its end. Until `Opener.finish` has returned, nothing that was opened may
be kept.
"""

import secrets
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pullprint.base.errors import PullprintError
from pullprint.vault.parts import KEY_SIZE, SLOT_SIZE, open_upload_key, seal_upload_key
from pullprint.wire.api import UPLOAD_PIECE, UPLOAD_TAG

_SEALED_PIECE = UPLOAD_PIECE + UPLOAD_TAG


class UploadDamaged(PullprintError):
    """The document arrived damaged or incomplete. Nothing was stored; upload it again."""

    code = "upload-damaged"
    http_status = 400


class Opener:
    """Opens an upload as it arrives, in steps of any size."""

    def __init__(self, private: bytes, upload: str) -> None:
        """*private* is the raw half of the day key that *upload* was offered."""
        self._private = private
        self._upload = upload
        self._cipher: AESGCM | None = None
        self._waiting = bytearray()
        self._number = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces of the document that *data* completes. Raises PartRefused, UploadDamaged."""
        self._waiting += data
        if self._cipher is None:
            if len(self._waiting) < SLOT_SIZE:
                return
            key = open_upload_key(bytes(self._waiting[:SLOT_SIZE]), self._private, upload=self._upload)
            self._cipher = AESGCM(key)
            del self._waiting[:SLOT_SIZE]
        while len(self._waiting) >= _SEALED_PIECE:
            piece = bytes(self._waiting[:_SEALED_PIECE])
            del self._waiting[:_SEALED_PIECE]
            yield self._open(self._cipher, piece, last=False)

    def finish(self) -> bytes:
        """The last piece, after everything was fed. Raises UploadDamaged unless the document is whole."""
        if self._cipher is None:
            raise UploadDamaged
        return self._open(self._cipher, bytes(self._waiting), last=True)

    def _open(self, cipher: AESGCM, piece: bytes, *, last: bool) -> bytes:
        try:
            plain = cipher.decrypt(_nonce(self._number, last=last), piece, None)
        except (InvalidTag, ValueError) as error:
            raise UploadDamaged from error
        self._number += 1
        return plain


def seal_upload(document: bytes, public: bytes, upload: str) -> Iterator[bytes]:
    """What a browser sends: the sealed key, then *document* in sealed pieces."""
    key = secrets.token_bytes(KEY_SIZE)
    yield seal_upload_key(key, public, upload=upload)
    cipher = AESGCM(key)
    for number in range(len(document) // UPLOAD_PIECE + 1):
        piece = document[number * UPLOAD_PIECE : (number + 1) * UPLOAD_PIECE]
        yield cipher.encrypt(_nonce(number, last=len(piece) < UPLOAD_PIECE), piece, None)


def _nonce(number: int, *, last: bool) -> bytes:
    return bytes(7) + number.to_bytes(4, "big") + (b"\1" if last else b"\0")
