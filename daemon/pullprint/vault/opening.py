"""Opening a sealed job: for the releaser only. ``cloud`` and ``mesh`` must not import this; ``make lint`` checks it."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pullprint.vault import header as layout
from pullprint.vault import keys
from pullprint.vault.generation import in_generation
from pullprint.vault.header import Header, SealDamaged
from pullprint.vault.stream import check_stream, open_stream
from pullprint.wire.mesh import KeyTable


def read_header(path: Path) -> Header:
    """The header of the sealed job at *path*, its signature checked. Raises SealDamaged, FileNotFoundError."""
    with path.open("rb") as file:
        start = file.read(16)
        return layout.decode(start + file.read(layout.read_length(start) - len(start)))


class OpenJob:
    """A sealed job whose every byte was checked before the first one is handed out. A context manager."""

    def __init__(
        self, path: Path, job: str, parts: Callable[[Header], Mapping[str, bytes]], table: KeyTable | None = None
    ) -> None:
        """Open the file at *path* of *job*; *parts* gives key parts by party, once the header is known to be sound.

        *table* has the slots of a generation after the first, and *parts* sees those. Blocking. Raises SealDamaged,
        FileNotFoundError, and what *parts* raises.
        """
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            start = os.pread(self._fd, 16, 0)
            encoded = os.pread(self._fd, layout.read_length(start), 0)
            self.header = layout.decode(encoded)
            if self.header.job != job:
                raise SealDamaged(reason="it is another job's file")
            current = in_generation(self.header, table)
            by_slot = {current.slot(party)[0]: part for party, part in parts(current).items()}
            data_key = keys.unwrap(current, by_slot, self.header)
            self._key = keys.payload_key(data_key, self.header.salt, job, self.header.context_hash)
            self._offset = len(encoded)
            check_stream(self._fd, self._offset, self.header.size, self._key, self.header.tags_digest)
        except BaseException:
            os.close(self._fd)
            raise

    def chunks(self) -> Iterator[memoryview]:
        """The document, 64 KiB at a time; blocking. Each piece is valid until the next is asked for."""
        return open_stream(self._fd, self._offset, self.header.size, self._key)

    def close(self) -> None:
        """Forget the key and let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._key = b""

    def __enter__(self) -> "OpenJob":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
