"""The ``pullprint-cloud`` command: `serve`, and what an administrator does before any page exists."""

import asyncio
import logging
import sys
from typing import Annotated

import typer

from pullprint import __version__
from pullprint.base import log
from pullprint.base.clock import SystemClock
from pullprint.base.errors import PullprintError
from pullprint.cloud import admin
from pullprint.cloud.admin import ConfigOption

cli = typer.Typer(name="pullprint-cloud", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
admin.add(cli)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pullprint-cloud {__version__}")
        raise typer.Exit


@cli.callback()
def options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """The control plane of Pullprint: users, orders, the web page. It can read no job."""


@cli.command()
def serve(config: ConfigOption = None) -> None:
    """Answer nodes and people, until it is told to stop."""
    from pullprint.cloud import app  # not needed by the other commands, which are quicker without it

    file = admin.config_file(config)
    settings = file.start()
    log.set_up(settings.log_level, journal=admin.under_systemd())
    if file.problem:
        logging.getLogger(__name__).error(file.trouble())
    asyncio.run(app.serve(settings, SystemClock(), file))


@cli.command()
def check(config: ConfigOption = None) -> None:
    """Say whether the settings are good, and start nothing; exit status 78 if they are not."""
    admin.settings(config)
    sys.stdout.write("The configuration is good.\n")


def main() -> None:
    """The entry point: errors are one sentence and exit status 1, or 78 where another try is no use; wrong usage is
    2."""
    try:
        cli()
    except PullprintError as error:
        sys.stderr.write(f"pullprint-cloud: {error.sentence}\n")
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
