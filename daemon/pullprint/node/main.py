"""The daemon ``pullprintd``."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

from pullprint import __version__
from pullprint.base import log, systemd
from pullprint.base.clock import SystemClock
from pullprint.base.config import ConfigFile
from pullprint.base.errors import PullprintError
from pullprint.base.files import private_directory
from pullprint.base.lock import lock_directory
from pullprint.base.platform import STATE
from pullprint.node.app import Node
from pullprint.node.settings import Settings

CONFIG = Path("/etc/pullprint/pullprint.toml")
INDEX_FILES = ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm")


def main() -> None:
    """Run until SIGTERM or SIGINT; a sentence and exit status 1 when it cannot start, 78 when it could not again."""
    arguments = _arguments()
    try:
        config = config_file(arguments.config)
        if arguments.check:
            config.read()
            print("pullprintd: the configuration is good.")
            return
        settings = config.start()
        log.set_up(settings.log_level, journal="JOURNAL_STREAM" in os.environ)
        if config.problem:
            logging.getLogger(__name__).error(config.trouble())
        lock = lock_directory(private_directory(settings.state_dir))
        try:
            if arguments.rebuild_index:
                set_index_aside(settings.state_dir)
            asyncio.run(_run(settings, config))
        finally:
            os.close(lock)
    except PullprintError as error:
        print(f"pullprintd: {error.sentence}", file=sys.stderr)
        sys.exit(error.exit_status)


def config_file(path: Path | None) -> ConfigFile[Settings]:
    """The configuration in *path*, or else the one of this host."""
    # Who names a file by hand reads what is wrong with it; and a copy of it would take the place of the host's own.
    by_hand = STATE if path is None else None
    return ConfigFile(Settings, path or CONFIG, optional=path is None, kept_in=systemd.state_directory() or by_hand)


def set_index_aside(state_dir: Path) -> None:
    """Move the index out of the way, so that the next start makes a new one from the sealed jobs."""
    for name in INDEX_FILES:
        path = state_dir / name
        if path.exists():
            path.replace(state_dir / f"{name}.old")


async def _run(settings: Settings, config: ConfigFile[Settings]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with systemd.starting("opening the index of held jobs"):
        node = await asyncio.to_thread(Node, settings, SystemClock(), config)
    await node.run(stop)
    logging.getLogger(__name__).info("stopped")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pullprintd", description="Seals, holds and releases print jobs.")
    parser.add_argument("--config", type=Path, help=f"TOML file (default: {CONFIG}, if it is there)")
    parser.add_argument("--check", action="store_true", help="say whether the file is good, and start nothing")
    parser.add_argument("--rebuild-index", action="store_true", help="make the index anew from the sealed jobs")
    parser.add_argument("--version", action="version", version=f"pullprintd {__version__}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
