"""The administrator's commands. They work on the database itself, also beside a running server."""

import dataclasses
import getpass
import json
import os
import pwd
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pullprint.base import files, systemd
from pullprint.base.clock import SystemClock
from pullprint.base.config import ConfigFile
from pullprint.base.errors import BadRequest, ConfigError
from pullprint.cloud import (
    certificates,
    enrolment,
    invitations,
    nodes,
    organisations,
    printers,
    setup,
    signs,
    sites,
    system,
    users,
)
from pullprint.cloud.config import ACCOUNT, CERTIFICATES, DEFAULT_FILE, Settings
from pullprint.cloud.store import Transaction, opened

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="PULLPRINT_CLOUD_CONFIG", help=f"Settings, TOML; {DEFAULT_FILE} if there is one."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]
Organisation = Annotated[str, typer.Argument(metavar="ORG", help="The organisation's short name.")]
Site = Annotated[str, typer.Argument(metavar="SITE", help="The site's short name.")]

P = ParamSpec("P")
T = TypeVar("T")

_DURATION = re.compile(r"([0-9]{1,7})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

organisation_cli = typer.Typer(help="Tenants of this cloud.", no_args_is_help=True)
site_cli = typer.Typer(help="Locations, each with its own network.", no_args_is_help=True)
user_cli = typer.Typer(help="People who print.", no_args_is_help=True)
printer_cli = typer.Typer(help="The inventory of a site's printers.", no_args_is_help=True)
node_cli = typer.Typer(help="Hosts that have joined.", no_args_is_help=True)


def add(cli: typer.Typer) -> None:
    """All commands of this file."""
    cli.add_typer(organisation_cli, name="organisation")
    cli.add_typer(site_cli, name="site")
    cli.add_typer(user_cli, name="user")
    cli.add_typer(printer_cli, name="printer")
    cli.add_typer(node_cli, name="node")
    cli.command("join-code")(join_code)
    cli.command("certificate")(certificate)
    cli.command("setup")(setup.setup)


def settings(path: Path | None) -> Settings:
    """The settings in *path*, or in the default file, or the defaults. Raises FileBroken."""
    return config_file(path).read()


def config_file(path: Path | None) -> ConfigFile[Settings]:
    """The configuration in *path*, or else the one of this host."""
    # Who names a file by hand reads what is wrong with it; and a copy of it would take the place of the host's own.
    by_hand = Settings().state_dir if path is None else None
    return ConfigFile(
        Settings, path or DEFAULT_FILE, optional=path is None, kept_in=systemd.state_directory() or by_hand
    )


def under_systemd() -> bool:
    """Whether standard error goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    return "JOURNAL_STREAM" in os.environ


@organisation_cli.command("add")
def organisation_add(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Short name: lower-case letters, digits, hyphens.")],
    name: Annotated[str, typer.Argument(help="Full name, for people.")],
    config: ConfigOption = None,
) -> None:
    """Make an organisation, with fresh keys."""
    _transact(settings(config), organisations.add, slug, name)
    _say(f"Organisation {slug} is there. Next: pullprint-cloud site add {slug} …")


@organisation_cli.command("list")
def organisation_list(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List organisations."""
    _show(_transact(settings(config), organisations.lines), as_json=as_json)


@site_cli.command("add")
def site_add(
    organisation: Organisation,
    slug: Annotated[str, typer.Argument(metavar="SITE", help="Short name of the new site.")],
    network: Annotated[list[str], typer.Option(help="Where its printers are, such as 192.0.2.0/24; repeatable.")],
    owner_rule: Annotated[str, typer.Option(help="Whose a local account's jobs are, such as {user}@example.com.")] = "",
    hold: Annotated[str, typer.Option(help="How long jobs wait: 90m, 24h, 3d.")] = "24h",
    config: ConfigOption = None,
) -> None:
    """Make a site."""
    _transact(settings(config), sites.add, organisation, slug, network, owner_rule, _seconds(hold))
    _say(f"Site {slug} is there. Next: pullprint-cloud join-code {organisation} {slug}")


@site_cli.command("list")
def site_list(organisation: Organisation, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List an organisation's sites."""
    _show(_transact(settings(config), sites.lines, organisation), as_json=as_json)


@user_cli.command("add")
def user_add(
    organisation: Organisation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as ada@example.com.")],
    *,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")] = False,
    invite: Annotated[
        bool, typer.Option("--invite", help="Show a link instead, with which the user chooses it.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a user; without --password-stdin or --invite a password is made up and shown once."""
    if invite:
        if password_stdin:
            raise BadRequest(reason="--password-stdin and --invite exclude each other")
        _invite(organisation, name, invitations.HOURS, config, new=True, as_json=as_json)
        return
    password = _read_password() if password_stdin else _new_password()
    encoded = users.hash_password(password)
    stored = _transact(settings(config), users.add, organisation, name, encoded)
    shown = {"user": stored} if password_stdin else {"user": stored, "password": password}
    if as_json:
        _say(json.dumps(shown))
    else:
        _say(f"User {stored} is there." + ("" if password_stdin else f" Password (shown this once): {password}"))


@user_cli.command("invite")
def user_invite(
    organisation: Organisation,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    hours: Annotated[int, typer.Option(help="How long the link is good.")] = invitations.HOURS,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a link with which a user chooses a password, once; it replaces an older link."""
    _invite(organisation, name, hours, config, new=False, as_json=as_json)


@user_cli.command("password")
def user_password(
    organisation: Organisation,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read it from standard input.")] = False,
    config: ConfigOption = None,
) -> None:
    """Give a user another password, and end their sessions."""
    password = _read_password() if password_stdin else _new_password()
    encoded = users.hash_password(password)
    stored = _transact(settings(config), users.set_password, organisation, name, encoded)
    _say(f"User {stored} has another password." + ("" if password_stdin else f" Shown this once: {password}"))


@user_cli.command("remove")
def user_remove(
    organisation: Organisation,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    *,
    config: ConfigOption = None,
) -> None:
    """Take a user away; what is held for them expires."""
    stored = _transact(settings(config), users.remove, organisation, name)
    _say(f"User {stored} is gone, and signed out everywhere.")


@user_cli.command("list")
def user_list(organisation: Organisation, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List an organisation's users."""
    _show([UserLine(name) for name in _transact(settings(config), users.names, organisation)], as_json=as_json)


@printer_cli.command("add")
def printer_add(
    organisation: Organisation,
    site: Site,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    uri: Annotated[str, typer.Argument(metavar="URI", help="ipp, ipps, socket or lpd, within the site's networks.")],
    *,
    place: Annotated[str, typer.Option(help="Where people find it.")] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a printer to a site's inventory."""
    printer_id = _transact(settings(config), printers.add, organisation, site, name, uri, place)
    _say(
        json.dumps({"id": printer_id, "name": name}) if as_json else f"Printer {name} is there; its id is {printer_id}."
    )


@printer_cli.command("list")
def printer_list(organisation: Organisation, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List an organisation's printers."""
    _show(_transact(settings(config), printers.lines, organisation), as_json=as_json)


@printer_cli.command("remove")
def printer_remove(
    organisation: Organisation,
    site: Site,
    which: Annotated[str, typer.Argument(metavar="PRINTER", help="Its id or name.")],
    config: ConfigOption = None,
) -> None:
    """Take a printer out of the inventory."""
    _transact(settings(config), printers.remove, organisation, site, which)
    _say("It is gone; nothing can be released there any more.")


@printer_cli.command("sign")
def printer_sign(
    organisation: Organisation,
    which: Annotated[str, typer.Argument(metavar="PRINTER", help="Its id, code or name.")],
    out: Annotated[Path, typer.Option(help="A .pdf is a sheet to hang up, A5; .png and .svg are the QR code alone.")],
    config: ConfigOption = None,
) -> None:
    """Make a printer's sign."""
    chosen = settings(config)
    kind = out.suffix.lower().removeprefix(".")
    if kind not in signs.KINDS:
        raise BadRequest(reason=f"the name of a sign's file ends in .{', .'.join(signs.KINDS)}")
    if not chosen.public_url:
        raise ConfigError(path=config or DEFAULT_FILE, reason="a sign needs public_url, the address that lasts")

    def work(t: Transaction) -> signs.Sign:
        return signs.sign(t, organisation, printers.meant(t, organisation, which), chosen.public_url)

    sign = _transact(chosen, work)
    made = signs.KINDS[kind][1](sign)
    try:
        files.replace(out, made, 0o644)
    except OSError as error:
        raise ConfigError(path=out, reason=error.strerror or "it cannot be written") from error
    _say(f"{out} is the sign of {sign.name}: it leads to {sign.url}, and its code is {sign.code}.")


@node_cli.command("list")
def node_list(organisation: Organisation, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the hosts that have joined."""
    _show(_transact(settings(config), nodes.lines, organisation), as_json=as_json)


@node_cli.command("revoke")
def node_revoke(
    organisation: Organisation,
    which: Annotated[str, typer.Argument(metavar="NODE", help="Its name, id, or the beginning of its id.")],
    config: ConfigOption = None,
) -> None:
    """Shut a host out: neither the cloud nor its peers speak to it any more."""
    line = _transact(settings(config), nodes.revoke, organisation, which)
    _say(f"{line.name} ({line.id}) is shut out, and its peers are told. Jobs that it alone holds cannot be released.")


def join_code(
    organisation: Organisation,
    site: Site,
    *,
    unmanaged: Annotated[
        bool, typer.Option("--unmanaged", help="Do not believe this host's account names: its jobs wait to be claimed.")
    ] = False,
    minutes: Annotated[int, typer.Option(help="How long the code lasts.")] = 30,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a code with which one host may join."""
    chosen = settings(config)
    code = _transact(chosen, enrolment.new_join_code, organisation, site, minutes, managed=not unmanaged)
    if as_json:
        _say(json.dumps({"code": code, "minutes": minutes}))
    else:
        url = chosen.public_url or "https://THIS-CLOUD"
        command = f"pullprint join {url} {code}{certificates.trust(chosen)}"
        _say(f"{code}\nGood for one host, for {minutes} minutes. There: {command}")


def certificate(
    host: Annotated[list[str] | None, typer.Option(help="A name or address of this server; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for ca.pem, ca.key, server.pem and server.key.")] = CERTIFICATES,
    *,
    renew: Annotated[
        bool,
        typer.Option(
            "--renew", help=f"Only what was made here and has fewer than {certificates.RENEW_DAYS} days left."
        ),
    ] = False,
) -> None:
    """Make a private CA and a server certificate by it, for a demo or one office.

    A CA that is in the folder already is used again, so that what trusts it goes on doing so. A running server takes up
    the new certificate within a minute.
    """
    if renew == bool(host):
        raise BadRequest(reason="it needs either --host or --renew")
    now = SystemClock().now()
    made = certificates.renewal(out, now) if renew else certificates.private(out, host or [], now)
    try:
        out.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(path=out, reason=error.strerror or "it cannot be written") from error
    certificates.write(made, _server_group())
    if not made:
        _say(f"There is nothing to renew in {out}.")
    elif renew:
        _say(f"Renewed {out / 'server.pem'}.")
    else:
        trusted = out / "ca.pem"
        _say(f"Made server.pem and server.key in {out}. Hosts and browsers have to trust {trusted}; keep ca.key safe.")


@dataclasses.dataclass(frozen=True, slots=True)
class UserLine:
    """A user, in a list."""

    name: str


def _show(lines: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        _say(json.dumps([dataclasses.asdict(line) for line in lines]))
        return
    if not lines:
        _say("None yet.")
        return
    names = [field.name for field in dataclasses.fields(lines[0])]
    table = Table(*names)
    for line in lines:
        table.add_row(*(Text(_cell(name, getattr(line, name))) for name in names))
    Console().print(table)


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, float):
        return datetime.fromtimestamp(value, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
    if name == "hold" and isinstance(value, int):
        return f"{value // 3_600} h" if value % 3_600 == 0 else f"{value // 60} min"
    return str(value)


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if not match:
        raise BadRequest(reason=f"{text} is not a time such as 90m, 24h or 3d")
    return int(match[1]) * _UNITS[match[2]]


def _invite(organisation: str, name: str, hours: int, config: Path | None, *, new: bool, as_json: bool) -> None:
    chosen = settings(config)
    if not chosen.public_url:
        raise ConfigError(path=config or DEFAULT_FILE, reason="a link needs public_url, the address that lasts")

    def work(t: Transaction) -> str:
        if new:
            users.add(t, organisation, name, users.NO_PASSWORD)
        return invitations.invite(t, organisation, name, hours)

    link = invitations.link(chosen.public_url, _transact(chosen, work))
    if as_json:
        _say(json.dumps({"user": name.lower(), "link": link, "hours": hours}))
    else:
        _say(f"{link}\nGood once, for {hours} hours, for {name.lower()} only: whoever has it chooses the password.")


def _transact(chosen: Settings, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What *work* returned, done in the database by whoever owns that; root's are the files that a command writes
    otherwise."""
    with system.as_owner(chosen), opened(chosen.database_url, SystemClock()) as store:
        return store.transact(work, *args, **kwargs)


def _server_group() -> int:
    """The group that reads the server's key: the account's, where root runs this on a server with one."""
    try:
        return pwd.getpwnam(ACCOUNT).pw_gid if os.geteuid() == 0 else -1
    except KeyError:
        return -1


def _read_password() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    return sys.stdin.readline(users.PASSWORD_LIMIT + 2).rstrip("\r\n")


def _new_password() -> str:
    return "-".join(secrets.token_hex(2) for _ in range(5))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
