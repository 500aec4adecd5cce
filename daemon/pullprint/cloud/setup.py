"""``pullprint-cloud setup``: from an installed package to a page that answers, all of it or nothing.

What may fail is looked at first. What is written then is taken back when a later step fails; the organisation, its site
and its first user are made last, in one transaction, when the server answers already.
"""

import dataclasses
import grp
import ipaddress
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from pullprint.base import config as config_file
from pullprint.base.clock import SystemClock
from pullprint.base.errors import BadRequest, PullprintError
from pullprint.cloud import certificates, enrolment, invitations, organisations, sites, system, users
from pullprint.cloud.certificates import File
from pullprint.cloud.config import ACCOUNT, CERTIFICATES, DEFAULT_FILE, Settings, host_of
from pullprint.cloud.store import Transaction, opened
from pullprint.model import owner

T = TypeVar("T")

PROXIED = "127.0.0.1:9265"
"""Where the server listens for a reverse proxy."""
BACKUP = DEFAULT_FILE.with_name(f"{DEFAULT_FILE.name}.before-setup")
HOLD = 86_400
CODE_MINUTES = 30
_VIRTUAL = ("docker", "br-", "veth", "virbr", "lxc", "cni", "podman", "vnet", "tun", "tap", "wg")


class FlagMissing(PullprintError):
    """{flag} is missing, and nobody is to be asked. Nothing was changed; add it."""

    code = "flag-missing"


class OtherSettings(PullprintError):
    """{path} is there already and says something else ({reason}). Nothing was changed; --force replaces that setting,
    and keeps the others."""

    code = "other-settings"


@dataclass(frozen=True, slots=True)
class Office:
    """What the database is to have."""

    organisation: str
    slug: str
    site: str
    networks: tuple[str, ...]
    owner_rule: str
    user: str


@dataclass(frozen=True, slots=True)
class Made:
    """What it has now; empty where it had that before."""

    new: tuple[str, ...]
    token: str
    join_code: str


@dataclass(frozen=True, slots=True)
class Asker:
    """Takes an answer from its flag, from what was found out, or from whoever sits at the terminal, who is asked again
    after a wrong one."""

    terminal: bool
    yes: bool

    def found(self, flag: str, given: str, question: str, found: str, check: Callable[[str], T]) -> T:
        """What was *given*, or what was *found* out about this host. Raises FlagMissing, and what *check* raises."""
        return self.choice(flag, given or (found if self.yes else ""), question, found, check)

    def derived(self, flag: str, given: str, question: str, follows: str, check: Callable[[str], T]) -> T:
        """Like `found`, for what *follows* from other answers: where nobody can be asked that is good enough."""
        return self.choice(flag, given or ("" if self.asks else follows), question, follows, check)

    def choice(self, flag: str, given: str, question: str, proposal: str, check: Callable[[str], T]) -> T:
        """What only a person can know; never made up. Raises FlagMissing, and what *check* raises."""
        if given:
            return check(given)
        if not self.asks:
            raise FlagMissing(flag=flag)
        while True:
            try:
                return check(str(typer.prompt(question, default=proposal or None)).strip())
            except PullprintError as error:
                _say(error.sentence)

    @property
    def asks(self) -> bool:
        """Whether there is somebody who may be asked."""
        return self.terminal and not self.yes


def setup(
    *,
    url: Annotated[str, typer.Option(help="Where people and hosts find this server: https://NAME.")] = "",
    organisation: Annotated[str, typer.Option(help="The organisation's name, for people.")] = "",
    slug: Annotated[str, typer.Option(help="Its short name, such as acme.")] = "",
    site: Annotated[str, typer.Option(help="Short name of its first site, such as hq.")] = "",
    network: Annotated[list[str] | None, typer.Option(help="Where the site's printers are; repeatable.")] = None,
    owner_rule: Annotated[str, typer.Option(help="Whose a local account's jobs are, as {user}@example.com.")] = "",
    user: Annotated[str, typer.Option(help="The first user, such as ada@example.com.")] = "",
    certificate: Annotated[Path | None, typer.Option(help="A certificate of yours with its chain, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    proxy: Annotated[bool, typer.Option("--proxy", help="A reverse proxy on this host ends TLS.")] = False,
    listen: Annotated[str, typer.Option(help=f"Where it finds the server: {PROXIED}, or a socket's path.")] = "",
    database: Annotated[str, typer.Option(help="postgresql://USER@HOST/NAME, instead of SQLite.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace settings that are there.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: take what can be found out.")] = False,
) -> None:
    """Set this server up: settings, certificate, service, and the first organisation with its site and user."""
    account = system.account()
    ask = Asker(terminal=sys.stdin.isatty(), yes=yes)
    old = config_file.load(Settings, DEFAULT_FILE) if DEFAULT_FILE.exists() else None
    url = url or (old.public_url if old else "")
    url = ask.found("--url", url, "Address of this server", f"https://{_fqdn()}", _check_url)
    if bool(certificate) != bool(key):
        raise FlagMissing(flag="--key" if certificate else "--certificate")
    if old is None and ask.asks and not (proxy or certificate):
        certificate, key, proxy = _ask_certificate(ask)
    if certificate and (proxy or listen):
        raise BadRequest(reason="with --proxy the certificate is the proxy's")
    changes = _changes(url, brought=bool(certificate), proxy=proxy, listen=listen, database=database, old=old)
    wanted = _settings(changes, old, force=force)
    office = None
    if old is None or any((organisation, slug, site, network, owner_rule, user)):
        office = _office(ask, url, organisation, slug, site, network or [], owner_rule, user)
    new = _certificate_files(wanted, certificate, key, old) + ([] if wanted == old else _config_files(wanted))
    if ask.asks:
        _show_plan(wanted, office, new)
        typer.confirm("Go ahead?", default=True, abort=True)
    _carry_out(wanted, new, office, account)


def _carry_out(settings: Settings, new: list[File], office: Office | None, account: pwd.struct_passwd) -> None:
    service = system.Service()
    service.check_port(settings)
    with system.Undo() as undo:
        service.restart_at_the_end(undo)
        system.state_folder(undo, settings, account)
        with system.checked_database(settings):
            before = _look(settings)
        for file in new:
            undo.write(file, account.pw_gid)
        service.start(undo, settings, changed=bool(new))
        made = None
        if office:
            with system.checked_database(settings):
                made = _make(settings, office)
        undo.pop_all()
    _tell(settings, before, office, made, running=service.systemd)


def _check_url(url: str) -> str:
    """Without a slash at its end. Raises BadRequest."""
    cleaned = url.strip().rstrip("/")
    try:
        parts = urlsplit(cleaned)
        usable = parts.scheme == "https" and parts.hostname and cleaned == f"https://{parts.netloc}"
        usable = usable and "@" not in parts.netloc and parts.port != 0 and cleaned.isprintable() and " " not in cleaned
    except ValueError:
        usable = False
    if not usable:
        raise BadRequest(reason=f"{url} is not an address such as https://print.example.com")
    return cleaned


def _ask_certificate(ask: Asker) -> tuple[Path | None, Path | None, bool]:
    _say("Its certificate: private is one of a CA that is made here, proxy leaves it to a proxy on this machine, and")
    _say("/… is the path of one of yours.")
    answer = ask.choice("--certificate", "", "Certificate", "private", _certificate)
    if isinstance(answer, Path):
        return answer, ask.choice("--key", "", "Its key", "", _file), False
    return None, None, answer == "proxy"


def _certificate(text: str) -> str | Path:
    return text if text in ("private", "proxy") else _file(text)


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise BadRequest(reason=f"there is no file {text}")
    return Path(text)


def _changes(
    url: str, *, brought: bool, proxy: bool, listen: str, database: str, old: Settings | None
) -> dict[str, Any]:
    """The settings that were named, and those that follow from them. Raises BadRequest."""
    changes: dict[str, Any] = {"public_url": url}
    if proxy or listen:
        changes |= {"proxy": True} | _listen(listen or (_listens(old) if old and old.proxy else PROXIED))
    elif old is None or (brought and old.proxy):
        changes |= {"proxy": False, "socket": None, "host": Settings().host, "port": _port(url)}
    elif not old.proxy and old.port == _port(old.public_url):
        changes["port"] = _port(url)
    if brought:
        changes |= {"certificate": CERTIFICATES / "server.pem", "key": CERTIFICATES / "server.key"}
    if database:
        changes["database"] = database
    return changes


def _port(url: str) -> int:
    return urlsplit(url).port or 443


def _settings(changes: dict[str, Any], old: Settings | None, *, force: bool) -> Settings:
    """What cloud.toml is to say, or what it says already. Raises BadRequest, OtherSettings."""
    try:
        wanted = dataclasses.replace(old or Settings(), **changes)
    except ValueError as error:
        raise BadRequest(reason=error) from error
    for name in changes:
        if old and not force and getattr(old, name) != getattr(wanted, name):
            raise OtherSettings(path=DEFAULT_FILE, reason=f"{name} is not as asked for")
    return wanted


def _listens(settings: Settings) -> str:
    if settings.socket:
        return str(settings.socket)
    return f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"


def _listen(text: str) -> dict[str, Any]:
    if text.startswith("/"):
        return {"socket": Path(text)}
    host, _, port = text.rpartition(":")
    if not re.fullmatch("[1-9][0-9]{0,4}", port):
        raise BadRequest(reason=f"{text} is neither an address with a port, such as {PROXIED}, nor a socket's path")
    return {"socket": None, "host": host.strip("[]") or "127.0.0.1", "port": int(port)}


def _config_files(wanted: Settings) -> list[File]:
    """cloud.toml, which may have the database's password in it, and a copy of what it replaces."""
    set_here = {
        field.name.replace("_", "-"): value if isinstance(value, bool | int) else str(value)
        for field in dataclasses.fields(Settings)
        if (value := getattr(wanted, field.name)) != field.default
    }
    lines = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in set_here.items())
    text = f"# Made by `pullprint-cloud setup`; pullprint-cloud.toml(5) has all settings.\n{lines}"
    assert tomllib.loads(text) == set_here
    made = File(DEFAULT_FILE, text.encode(), 0o600, shared=True)
    return [File(BACKUP, DEFAULT_FILE.read_bytes(), 0o600), made] if DEFAULT_FILE.exists() else [made]


def _certificate_files(
    wanted: Settings, certificate: Path | None, key: Path | None, old: Settings | None
) -> list[File]:
    """Raises CertificateRefused, BadRequest."""
    if wanted.proxy:
        return []
    host, now = host_of(wanted.public_url), SystemClock().now()
    server = CERTIFICATES / "server.pem"
    if certificate and key:
        made = certificates.brought(CERTIFICATES, certificate, key, host, now)
        return [file for file in made if not _has(file)]
    brought = old is not None and server.exists() and not certificates.is_ours(CERTIFICATES)
    if wanted.certificate != server or brought or certificates.serves(CERTIFICATES, host, now):
        return []
    return certificates.private(CERTIFICATES, [host], now)


def _has(file: File) -> bool:
    return file.path.exists() and file.path.read_bytes() == file.data


def _office(
    ask: Asker, url: str, name: str, slug: str, site: str, networks: Sequence[str], rule: str, user: str
) -> Office:
    """Raises FlagMissing, BadRequest, RuleRefused."""
    host = host_of(url)
    domain = host.partition(".")[2] if host.count(".") > 1 and not host[-1].isdigit() else ""
    proposed = domain.partition(".")[0].title()
    name = ask.choice("--organisation", name, "Organisation", proposed, _organisation)
    slug = ask.derived("--slug", slug, "Its short name", _slug(name), _organisation_slug)
    site = ask.found("--site", site, "Short name of its site here", "hq", _site_slug)
    given = ask.found(
        "--network", ",".join(networks), "Networks of its printers", ",".join(_networks()), _check_networks
    )
    admin = os.environ.get("SUDO_USER", "admin")
    user = ask.choice("--user", user, "First user", f"{admin}@{domain}" if domain else admin, users.check_user_name)
    at = user.partition("@")[2]
    follows = f"{{user}}@{at}" if at else "{user}"
    rule = ask.derived("--owner-rule", rule, "Whose the jobs of the account {user} are", follows, owner.check_rule)
    return Office(name, slug, site, given, rule, user)


def _organisation(name: str) -> str:
    return organisations.check_name("an organisation's name", name)


def _organisation_slug(slug: str) -> str:
    return organisations.check_slug("an organisation's short name", slug)


def _site_slug(slug: str) -> str:
    return organisations.check_slug("a site's short name", slug)


def _check_networks(text: str) -> tuple[str, ...]:
    return tuple(str(sites.check_network(network)) for network in re.split(r"[,\s]+", text.strip(", ")))


def _slug(name: str) -> str:
    return re.sub("[^0-9a-z]+", "-", name.lower()).strip("-")[:64]


def _fqdn() -> str:
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name


def _networks() -> list[str]:
    """The private networks that this host is on, its containers' and tunnels' left out."""
    program = shutil.which("ip") or "/usr/sbin/ip"
    try:
        shown = subprocess.run([program, "-j", "addr"], capture_output=True, check=True, timeout=10).stdout
        links = json.loads(shown)
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    found = []
    for link in links:
        if link.get("ifname", "").startswith(_VIRTUAL) or "UP" not in link.get("flags", ()):
            continue
        for address in link.get("addr_info", ()):
            network = ipaddress.ip_interface(f"{address['local']}/{address['prefixlen']}").network
            if address.get("scope") == "global" and network.is_private and network.num_addresses > 1:
                found.append(str(network))
    return list(dict.fromkeys(found))


def _show_plan(wanted: Settings, office: Office | None, new: list[File]) -> None:
    if office:
        _say(f"\n{office.organisation} ({office.slug}), site {office.site}, networks {', '.join(office.networks)}")
        _say(f"first user {office.user}; the jobs of an account are those of {office.owner_rule}")
    _say(f"address {wanted.public_url}" + (", behind a proxy" if wanted.proxy else ""))
    _say(f"to be written: {', '.join(str(file.path) for file in new) or 'nothing'}")


def _look(settings: Settings) -> list[str]:
    """The organisations that are there, in a few words each."""
    with opened(settings.database_url, SystemClock()) as store:
        there = store.transact(organisations.lines)
    return [f"{line.name} ({line.id}), {line.users} users, {line.nodes} hosts" for line in there]


def _make(settings: Settings, office: Office) -> Made:
    """All that is missing of *office*, or nothing."""

    def work(t: Transaction) -> Made:
        new = []
        token = join_code = ""
        if office.slug not in organisations.identities(t):
            organisations.add(t, office.slug, office.organisation)
            new.append(f"organisation {office.slug}")
        if office.site not in {line.id for line in sites.lines(t, office.slug)}:
            sites.add(t, office.slug, office.site, office.networks, office.owner_rule, HOLD)
            join_code = enrolment.new_join_code(t, office.slug, office.site, CODE_MINUTES, managed=True)
            new.append(f"site {office.site}")
        if office.user not in users.names(t, office.slug):
            users.add(t, office.slug, office.user, users.NO_PASSWORD)
            token = invitations.invite(t, office.slug, office.user, invitations.HOURS)
            new.append(f"user {office.user}")
        return Made(tuple(new), token, join_code)

    with opened(settings.database_url, SystemClock()) as store:
        return store.transact(work)


def _tell(settings: Settings, before: list[str], office: Office | None, made: Made | None, *, running: bool) -> None:
    url = settings.public_url
    for line in before:
        _say(f"There already: {line}.")
    if running:
        _say(f"The server answers for {url}.")
    else:
        _say(f"No systemd runs here. Start the server with: runuser -u {ACCOUNT} -- pullprint-cloud serve")
    if made and made.new:
        _say(f"New: {', '.join(made.new)}.")
    if settings.proxy:
        where = f"unix:{settings.socket}" if settings.socket else f"http://{_listens(settings)}"
        _say(f"\nThe proxy has to pass on everything to {where}: see /usr/share/doc/pullprint-cloud/examples.")
        if settings.socket:
            group = grp.getgrgid(pwd.getpwnam(ACCOUNT).pw_gid).gr_name
            _say(f"Its account has to be in the group {group}.")
    if office and made and made.token:
        _say(f"\nFirst sign-in of {office.user}, good once and for {invitations.HOURS} hours:")
        _say(f"  {invitations.link(url, made.token)}")
    if office and made and made.join_code:
        _say(f"\nOn the first host that people print from, as root, within {CODE_MINUTES} minutes:")
        _say(f"  pullprint join {url} {made.join_code}{certificates.trust(settings)}")
    slug, site = (office.slug, office.site) if office else ("ORG", "SITE")
    _say("\nNext:")
    _say(f"  pullprint-cloud printer add {slug} {site} NAME ipps://ADDRESS/ipp/print   a printer")
    _say(f"  pullprint-cloud user add {slug} NAME@EXAMPLE.COM --invite   another user")
    _say(f"  pullprint-cloud join-code {slug} {site}   a code for another host")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
