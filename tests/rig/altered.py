"""``python -m tests.rig.altered stop|kill SECONDS WORD…``: pullprintd with a clock that is wrong by SECONDS and, with
``stop``, one that stands still (SIGSTOP) at the checkpoint of PULLPRINT_KILL_AT instead of dying there."""

import signal
import sys
import time
from types import SimpleNamespace

from pullprint.base import checkpoint
from pullprint.base.clock import SystemClock
from pullprint.node.main import main

if __name__ == "__main__":
    if sys.argv.pop(1) == "stop":
        vars(checkpoint)["signal"] = SimpleNamespace(SIGKILL=signal.SIGSTOP)
    _AHEAD = float(sys.argv.pop(1))
    # The only place of the product where the time of day is read.
    SystemClock.now = lambda self: time.time() + _AHEAD  # type: ignore[method-assign]
    main()
