"""B7: the most memory that any process has resident while a 1 GiB document goes all the way.

Intake, hold and release to a raw printer that discards, with every process's own high-water mark (VmHWM of
proc_pid_status(5), shared libraries included) looked at every few milliseconds. The document is a sparse PDF, so that
its facts are counted as well; cupsd and its backends, which are CUPS's own, are listed for information.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.figures import Figure, Target
from tests.bench.parts import Control
from tests.bench.sink import Sink
from tests.rig.documents import sparse_pdf
from tests.rig.office import Office
from tests.rig.processes import wait_until

MIB = 1 << 20
EVERY = 0.01
PROCESSES = ("pullprintd", "pullprint-cloud", "backend", "facts")


def run(*, quick: bool) -> Iterator[Figure]:
    """One figure for each process."""
    raise NotImplementedError
