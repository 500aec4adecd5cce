"""The payload: STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015) of AES-256-GCM over 64 KiB chunks, as age lays it out.

Chunk *i* is sealed under the nonce *i* (11 bytes, big-endian) ‖ 1 for the last chunk, 0 for all others. So a chunk
that is missing, moved, repeated or added is an error, as is a file that ends early. Everything here works on open
descriptors with a few fixed buffers: a document of any size costs the same memory.
"""

import hashlib
import os
from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pullprint.base.errors import TooLarge
from pullprint.vault.header import CHUNK, TAG, SealDamaged, payload_length

BATCH = 16
"""Chunks that are read and written at once: 1 MiB."""
FIRST_BATCH = 2
"""The same, at the beginning: most documents are small, and a large buffer costs more than sealing them."""


Reader = Callable[[memoryview], int]
"""Fills the beginning of a buffer and says how much; 0 is the document's end. May raise."""


def seal_stream(read: Reader, target: int, offset: int, key: bytes, limit: int) -> tuple[int, bytes]:
    """Seal everything that *read* yields into descriptor *target* from *offset* on.

    Returns the document's size and the SHA-256 over all tags. Raises TooLarge beyond *limit* bytes, and OSError or what
    *read* raises as it comes.
    """
    cipher = AESGCM(key)
    digest = hashlib.sha256()
    plain, sealed = _buffers(FIRST_BATCH)
    size = number = held = 0
    ended = False
    while not ended:
        filled, ended = _fill(read, plain, held)
        size += filled - held
        if size > limit:
            raise TooLarge(what="The document", limit=f"{limit >> 20} MiB")
        # The last chunk carries a flag, so the last full one is held back until more is known to follow.
        chunks = -(-filled // CHUNK) if ended else filled // CHUNK - 1
        chunks = max(chunks, 1) if ended else chunks
        position = 0
        for index in range(chunks):
            piece = plain[index * CHUNK : min((index + 1) * CHUNK, filled)]
            last = ended and index == chunks - 1
            into = sealed[position : position + len(piece) + TAG]
            cipher.encrypt_into(_nonce(number, last), piece, None, into)
            digest.update(into[-TAG:])
            position += len(into)
            number += 1
        write_at(target, sealed[:position], offset)
        offset += position
        held = filled - chunks * CHUNK
        if not ended:
            rest = plain[filled - held : filled]
            if len(plain) < BATCH * CHUNK:
                plain, sealed = _buffers(BATCH)
            plain[:held] = rest
    return size, digest.digest()


def open_stream(source: int, offset: int, size: int, key: bytes) -> Iterator[memoryview]:
    """The document's chunks, checked one by one; each is valid until the next is asked for. Raises SealDamaged."""
    for plain, _ in _chunks(source, offset, size, key):
        yield plain


def check_stream(source: int, offset: int, size: int, key: bytes, tags_digest: bytes) -> None:
    """Read the whole payload and raise SealDamaged unless every byte is what was sealed and nothing follows it."""
    if os.fstat(source).st_size != offset + payload_length(size):
        raise SealDamaged(reason="its length is wrong")
    digest = hashlib.sha256()
    for _, tag in _chunks(source, offset, size, key):
        digest.update(tag)
    if digest.digest() != tags_digest:
        raise SealDamaged(reason="its chunks are not those of its header")


def _chunks(source: int, offset: int, size: int, key: bytes) -> Iterator[tuple[memoryview, memoryview]]:
    cipher = AESGCM(key)
    plain = memoryview(bytearray(CHUNK))
    left = payload_length(size)
    sealed = memoryview(bytearray(min(left, BATCH * (CHUNK + TAG))))
    number = 0
    while left:
        batch = sealed[: min(left, len(sealed))]
        if _read_at(source, batch, offset) != len(batch):
            raise SealDamaged(reason="it is cut off")
        offset += len(batch)
        left -= len(batch)
        for start in range(0, len(batch), CHUNK + TAG):
            piece = batch[start : start + CHUNK + TAG]
            last = left == 0 and start + len(piece) == len(batch)
            into = plain[: len(piece) - TAG]
            try:
                cipher.decrypt_into(_nonce(number, last), piece, None, into)
            except InvalidTag as error:
                raise SealDamaged(reason=f"chunk {number} is not what was sealed") from error
            yield into, piece[-TAG:]
            number += 1


def _buffers(chunks: int) -> tuple[memoryview, memoryview]:
    """Room for so many chunks, plain and sealed."""
    return memoryview(bytearray(chunks * CHUNK)), memoryview(bytearray(chunks * (CHUNK + TAG)))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if last else b"\0")


def _fill(read: Reader, buffer: memoryview, held: int) -> tuple[int, bool]:
    while held < len(buffer):
        count = read(buffer[held:])
        if count == 0:
            return held, True
        held += count
    return held, False


def write_at(target: int, data: memoryview, offset: int) -> None:
    """All of *data* at *offset*: a disk that is nearly full writes a part and says so only by the number."""
    while data:
        count = os.pwrite(target, data, offset)
        data = data[count:]
        offset += count


def _read_at(source: int, buffer: memoryview, offset: int) -> int:
    done = 0
    while done < len(buffer):
        count = os.preadv(source, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done
