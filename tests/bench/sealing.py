"""B4: sealing and verifying a document, beside what OpenSSL's own benchmark says of AES-256-GCM on this machine.

Sealing is everything from an open file to a durable sealed one: reading, encrypting, digest, writing, fsync.
Verifying is the full pass before the first byte is printed. What counts is the pair on a tmpfs, which is the work that
the program adds; on a disk the disk's own speed comes on top, shown for information.
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
from pullprint.vault.header import Header
from pullprint.vault.opening import OpenJob
from pullprint.vault.sealing import seal
from pullprint.wire.node import CLOUD

MIB = 1 << 20
TMPFS = Path("/dev/shm")
AGAINST = "openssl speed, AES-256-GCM, 64 KiB"


def run(*, quick: bool) -> Iterator[Figure]:
    """Seal and verify, on tmpfs and on disk."""
    size, rounds = (8 * MIB, 2) if quick else (100 * MIB, 7)
    with tempfile.TemporaryDirectory(dir=TMPFS) as memory, tempfile.TemporaryDirectory() as disk:
        for name, directory in (("tmpfs", Path(memory)), ("disk", Path(disk))):
            seals, verifies, ciphers, deciphers = [], [], [], []
            for _ in range(rounds):
                ciphers.append(_openssl())
                sealed, verified = _measure(directory, size)
                seals.append(sealed)
                deciphers.append(_openssl("-decrypt"))
                verifies.append(verified)
            target = Target("ratio", "least", 0.5) if name == "tmpfs" else None
            for word, values, baseline in (("seal", seals, ciphers), ("verify", verifies, deciphers)):
                yield Figure(
                    "B4", f"{word} {size // MIB} MiB on {name}", "MB/s", median(values), median(baseline), AGAINST,
                    target, {"rounds": values, "rounds of the baseline": baseline},
                )  # fmt: skip


def _measure(directory: Path, size: int) -> tuple[float, float]:
    """Megabytes per second of sealing a file in *directory*, and of verifying what came out."""
    parties, job = Parties(), new_job_id()
    source = directory / "document"
    source.write_bytes(os.urandom(size))
    path = directory / job
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
    source.unlink()
    path.unlink()
    return size / sealed / 1e6, size / verified / 1e6


def _openssl(*words: str) -> float:
    """Megabytes per second, for one second of wall clock."""
    argv = ["openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", "65536", "-evp", "aes-256-gcm", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    found = re.search(r"^AES-256-GCM +([0-9.]+)k$", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"openssl speed said: {done.stdout}")
    return float(found[1]) / 1_000
