"""B7: the most memory that any process of ours has resident while a 1 GiB document goes all the way.

Intake, hold, counting facts, release to a raw printer that discards. What is read is each process's own high-water
mark (VmHWM of proc_pid_status(5), shared libraries included), every few milliseconds, so that it is known of those
that end too. The baseline is the same way with a small document: what the programs take before any document's size.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.figures import Figure, Target
from tests.bench.parts import Control
from tests.bench.sink import Sink
from tests.rig.documents import pdf
from tests.rig.office import Office
from tests.rig.processes import wait_until

MIB = 1 << 20
EVERY = 0.01
PRINTER = "Sink"
WHO = ("pullprintd", "cloud", "backend", "facts", "socket")
"""``socket`` is CUPS's, started by us."""
BASELINES = 10
"""Small jobs: a process that lives for a few milliseconds is seldom caught at its largest."""


def run(*, quick: bool) -> Iterator[Figure]:
    """One figure for each process."""
    size = (32 if quick else 1_024) * MIB
    with Office() as office, Sink() as sink:
        office.add_printer(PRINTER, sink.uri)
        small, large = office.root / "small.pdf", office.root / "large.pdf"
        small.write_bytes(pdf())
        write_sparse_pdf(large, size)
        with Peaks(office) as peaks:
            for _ in range(BASELINES):
                _print(office, sink, small)
            before = dict(peaks.mib)
            missing = [who for who in WHO if who not in before]
            if missing:
                raise RuntimeError(f"never seen: {', '.join(missing)}")
            peaks.forget()
            began = time.monotonic()
            _print(office, sink, large)
            seconds = time.monotonic() - began
        for who in WHO:
            yield Figure(
                "B7", f"peak of {who}, {size // MIB:,} MiB job", "MiB", peaks.mib[who], before[who],
                "the same, one-page job", Target("value", "most", 150.0),
                {"seconds from lp to done": seconds} if who == WHO[0] else {},
            )  # fmt: skip


def _print(office: Office, sink: Sink, document: Path) -> None:
    """All the way, and all of it."""
    office.cups.lp("pullprint", document, user=office.account, title="bench")
    control = Control(office.node.control)
    try:

        def held() -> list[str]:
            return [job["id"] for job in control.jobs() if job["state"] == "held" and job["facts"]]

        wait_until("a held job", held, 300, every=0.05)
        job = held()[0]
        control.request("POST", f"/v1/jobs/{job}/release", {"printer": PRINTER})
        arrival = sink.arrival(300)
        if arrival.size != document.stat().st_size:
            raise RuntimeError(f"{arrival.size} bytes came out")
        wait_until("the end", lambda: control.request("GET", f"/v1/jobs/{job}")["state"] == "done", 60, every=0.05)
    finally:
        control.close()


def write_sparse_pdf(path: Path, size: int) -> None:
    """A valid one-page PDF of about *size* bytes, nearly all of them a stream of zeros that takes no room on disk."""
    objects = (
        b"1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n",
        b"2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n",
        b"3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]>>\nendobj\n",
        b"4 0 obj\n<</Length %d>>\nstream\n" % size,
    )
    with path.open("wb") as file:
        file.write(b"%PDF-1.4\n")
        offsets = []
        for text in objects:
            offsets.append(file.tell())
            file.write(text)
        file.seek(size, 1)
        file.write(b"\nendstream\nendobj\n")
        table = file.tell()
        file.write(b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets))
        file.write(b"trailer\n<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % table)


@dataclass
class Peaks:
    """The largest VmHWM, in MiB, of any process of each kind, watched from a thread; a context manager."""

    office: Office
    mib: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._fixed = {self.office.node.process.pid: "pullprintd", self.office.cloud.process.pid: "cloud"}
        self._backend = str(self.office.cups.root / "lib" / "backend" / "pullprint").encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peaks")

    def forget(self) -> None:
        """Begin anew."""
        self.mib.clear()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self._look()

    def _look(self) -> None:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                who = self._fixed.get(int(entry.name)) or self._kind((entry / "cmdline").read_bytes().split(b"\0"))
                peak = _high_water(entry) if who else 0.0
            except OSError:
                continue  # it has ended
            if who and peak:
                self.mib[who] = max(peak, self.mib.get(who, 0.0))

    def _kind(self, words: list[bytes]) -> str:
        if self._backend in words[:4]:
            return "backend"
        if b"/pullprint-facts" in words[:5]:
            return "facts"
        return "socket" if words[0].endswith(b"/backend/socket") else ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()


def _high_water(process: Path) -> float:
    """Its VmHWM; 0 once it is dead and not yet reaped."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1_024
    return 0.0
