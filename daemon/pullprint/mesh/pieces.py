"""A stretch of a file, piece by piece, read in threads: one batch of pieces ahead of the network."""

import asyncio
import os
from pathlib import Path

PIECE = 1 << 18
"""Bytes; what asyncio's TLS takes in and hands out at once."""
BATCH = 4 * PIECE
"""Bytes that are read at a time: each visit to a thread costs as much as reading a piece does."""


class FilePieces:
    """The bytes of a file from an offset up to its size, once. Close it."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        """*fd* is closed with this."""
        self._fd = fd
        self._offset = offset
        self._size = size
        self._batch = memoryview(b"")
        self._ahead: asyncio.Future[bytes] | None = None

    @property
    def left(self) -> int:
        """Bytes that are still to come."""
        return max(self._size - self._offset, 0)

    @classmethod
    async def open(cls, path: Path, offset: int, size: int) -> "FilePieces":
        """Of the file at *path*. Raises OSError."""
        return cls(await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), offset, size)

    async def next(self) -> memoryview:
        """The next piece; empty at the end. Raises OSError, also when the file is shorter than it should be."""
        if self._offset >= self._size:
            return memoryview(b"")
        if not self._batch:
            self._batch = memoryview(await (self._ahead or self._read(self._offset)))
            self._ahead = None
            if not self._batch:
                raise OSError("the file is shorter than it should be")
            after = self._offset + len(self._batch)
            if after < self._size:
                self._ahead = self._read(after)
        piece, self._batch = self._batch[:PIECE], self._batch[PIECE:]
        self._offset += len(piece)
        return piece

    def close(self) -> None:
        """Close the file. A thread may still be about to read: what it gets then, from whatever has the number by then,
        is thrown away."""
        if self._ahead:
            self._ahead.cancel()
        os.close(self._fd)

    def _read(self, offset: int) -> asyncio.Future[bytes]:
        length = min(BATCH, self._size - offset)
        return asyncio.get_running_loop().run_in_executor(None, os.pread, self._fd, length, offset)
