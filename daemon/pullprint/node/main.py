"""The daemon ``pullprintd``."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from pullprint import __version__
from pullprint.base import log
from pullprint.base.clock import SystemClock
from pullprint.base.config import load
from pullprint.base.errors import PullprintError
from pullprint.base.files import private_directory
from pullprint.base.lock import lock_directory
from pullprint.node.app import Node
from pullprint.node.settings import Settings

CONFIG = Path("/etc/pullprint/pullprint.toml")
INDEX_FILES = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")


def main() -> None:
    """Run until SIGTERM or SIGINT; exit status 1 with a sentence when it cannot start."""
    arguments = _arguments()
    try:
        settings = load(Settings, arguments.config or (CONFIG if CONFIG.exists() else None))
        log.set_up(settings.log_level, journal="JOURNAL_STREAM" in os.environ)
        lock = lock_directory(private_directory(settings.state_dir))
        try:
            if arguments.rebuild_index:
                set_index_aside(settings.state_dir)
            asyncio.run(_run(settings))
        finally:
            os.close(lock)
    except PullprintError as error:
        print(f"pullprintd: {error.sentence}", file=sys.stderr)
        sys.exit(1)


def set_index_aside(state_dir: Path) -> None:
    """Move the index out of the way, so that the next start makes a new one from the sealed jobs."""
    for name in INDEX_FILES:
        path = state_dir / name
        if path.exists():
            path.replace(state_dir / f"{name}.old")


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Node(settings, SystemClock()).run(stop)
    logging.getLogger(__name__).info("stopped")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pullprintd", description="Seals, holds and releases print jobs.")
    parser.add_argument("--config", type=Path, help=f"TOML file (default: {CONFIG}, if it is there)")
    parser.add_argument("--rebuild-index", action="store_true", help="make the index anew from the sealed jobs")
    parser.add_argument("--version", action="version", version=f"pullprintd {__version__}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
