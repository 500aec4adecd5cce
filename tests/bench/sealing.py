"""B4: sealing and verifying a document, beside what OpenSSL's own benchmark says of AES-256-GCM on this machine.

Sealing is everything from an open file to a durable sealed one: reading, encrypting, digest, writing, fsync.
Verifying is the full pass before the first byte is printed. What counts is the pair on a tmpfs, which is the work that
the program adds; on a disk the disk's own speed comes on top, shown for information. So is what sealing costs beyond
a plain copy of the same bytes.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

from tests.bench.figures import Figure, Target
from tests.unit.making import LIMIT, Parties

from pullprint.model.job import new_job_id
from pullprint.node.document import IncomingDocument
from pullprint.vault.header import CHUNK, Header
from pullprint.vault.opening import OpenJob
from pullprint.vault.sealing import seal
from pullprint.vault.stream import BATCH, write_at
from pullprint.wire.node import CLOUD

MIB = 1 << 20
TMPFS = Path("/dev/shm")
AGAINST = "openssl speed, AES-256-GCM, 64 KiB"


def run(*, quick: bool) -> Iterator[Figure]:
    """Seal and verify, on tmpfs and on disk."""
    size, rounds = (8 * MIB, 2) if quick else (100 * MIB, 7)
    with tempfile.TemporaryDirectory(dir=TMPFS) as memory, tempfile.TemporaryDirectory() as disk:
        for name, directory in (("tmpfs", Path(memory)), ("disk", Path(disk))):
            seals, verifies, copies, ciphers, deciphers = [], [], [], [], []
            source = directory / "document"
            source.write_bytes(os.urandom(size))
            for _ in range(rounds):
                ciphers.append(_openssl())
                sealed, verified = _seal_and_verify(source)
                seals.append(sealed)
                verifies.append(verified)
                copies.append(_copy(source))
                deciphers.append(_openssl("-decrypt"))
            what = f"{size // MIB} MiB on {name}"
            target = Target("ratio", "least", 0.5) if name == "tmpfs" else None
            yield _figure(f"seal {what}", seals, ciphers, AGAINST, target)
            yield _figure(f"verify {what}", verifies, deciphers, AGAINST, target)
            yield _figure(f"seal {what}", seals, copies, "the same bytes copied, with fsync", None)


def _figure(what: str, values: list[float], baseline: list[float], against: str, target: Target | None) -> Figure:
    detail = {"rounds": values, "rounds of the baseline": baseline}
    return Figure("B4", what, "MB/s", median(values), median(baseline), against, target, detail)


def _seal_and_verify(source: Path) -> tuple[float, float]:
    """Megabytes per second of sealing *source* beside itself, and of verifying what came out."""
    parties, job = Parties(), new_job_id()
    path, size = source.with_name(job), source.stat().st_size
    document = IncomingDocument(os.open(source, os.O_RDONLY))
    try:
        began = time.monotonic()
        seal(
            document.read, path, job=job, context=parties.context(), parties=parties.parties,
            identity=parties.identity, limit=LIMIT,
        )  # fmt: skip
        sealed = time.monotonic() - began
    finally:
        document.close()

    def parts(header: Header) -> Mapping[str, bytes]:
        return {name: parties.part(header, name) for name in (parties.node, CLOUD)}

    began = time.monotonic()
    with OpenJob(path, job, parts):
        verified = time.monotonic() - began
    path.unlink()
    return size / sealed / 1e6, size / verified / 1e6


def _copy(source: Path) -> float:
    """Megabytes per second of a durable copy by the calls and the buffer size that sealing uses: all but the cipher."""
    path, size = source.with_name("copy"), source.stat().st_size
    buffer = memoryview(bytearray(BATCH * CHUNK))
    came, goes = os.open(source, os.O_RDONLY), os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        began = time.monotonic()
        offset = 0
        while count := os.readv(came, [buffer]):
            write_at(goes, buffer[:count], offset)
            offset += count
        os.fsync(goes)
        return size / (time.monotonic() - began) / 1e6
    finally:
        os.close(came)
        os.close(goes)
        path.unlink()


def _openssl(*words: str) -> float:
    """Megabytes per second, for one second of wall clock."""
    argv = ["openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", "65536", "-evp", "aes-256-gcm", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    found = re.search(r"^AES-256-GCM +([0-9.]+)k$", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"openssl speed said: {done.stdout}")
    return float(found[1]) / 1_000
