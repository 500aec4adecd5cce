"""The inventory: which printers a site has, and where they are."""

import ipaddress
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import bindparam, delete, func, insert, select

from pullprint.base.errors import NotFound, PullprintError
from pullprint.cloud import organisations, sites
from pullprint.cloud.store import Transaction
from pullprint.cloud.tables import printer
from pullprint.wire.views import PrinterView

SCHEMES = ("ipp", "ipps", "socket", "lpd")
URI_LIMIT = 1_023
_PLAIN = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

_BY_ID_OR_NAME = (
    select(printer.c.id, printer.c.name, printer.c.place)
    .where(printer.c.organisation == bindparam("of"), printer.c.site == bindparam("at"))
    .where((printer.c.id == bindparam("which")) | (func.lower(printer.c.name) == bindparam("lowered")))
)


class UriRefused(PullprintError):
    """The printer's address was refused: {reason}. Nothing was changed; write it like ipps://192.0.2.7/ipp/print."""

    code = "uri-refused"
    http_status = 400


@dataclass(frozen=True, slots=True)
class PrinterLine:
    """A printer, in an admin's list."""

    id: str
    site: str
    name: str
    place: str
    uri: str


def add(t: Transaction, organisation_id: str, site_id: str, name: str, uri: str, place: str) -> str:
    """A new printer's id. Raises UriRefused, BadRequest, NotFound, AlreadyThere."""
    networks = sites.networks_of(t, organisation_id, site_id)
    title = organisations.check_name("a printer's name", name)
    where = organisations.check_name("a printer's place", place) if place else ""
    check_uri(uri, networks)
    same = select(printer.c.id).where(
        printer.c.organisation == organisation_id,
        printer.c.site == site_id,
        func.lower(printer.c.name) == title.lower(),
    )
    if t.one(same) is not None:
        raise organisations.AlreadyThere(what="printer", name=title)
    printer_id = secrets.token_hex(6)
    values = {
        "id": printer_id,
        "organisation": organisation_id,
        "site": site_id,
        "name": title,
        "place": where,
        "uri": uri,
        "created": t.now,
    }
    t.run(insert(printer), values)
    sites.changed(t, organisation_id, site_id)
    return printer_id


def remove(t: Transaction, organisation_id: str, site_id: str, which: str) -> None:
    """Take the printer with this id or name out of the inventory. Raises NotFound."""
    found = by_id_or_name(t, organisation_id, site_id, which)
    t.run(delete(printer).where(printer.c.id == found.id))
    sites.changed(t, organisation_id, site_id)


def lines(t: Transaction, organisation_id: str) -> list[PrinterLine]:
    """All printers of an organisation, by site and name. Raises NotFound."""
    organisations.check_exists(t, organisation_id)
    query = select(printer.c.id, printer.c.site, printer.c.name, printer.c.place, printer.c.uri)
    query = query.where(printer.c.organisation == organisation_id).order_by(printer.c.site, printer.c.name)
    return [PrinterLine(*row) for row in t.all(query)]


def views(t: Transaction, organisation_id: str) -> list[PrinterView]:
    """What people may choose from; addresses are not their business."""
    query = select(printer.c.id, printer.c.name, printer.c.place)
    query = query.where(printer.c.organisation == organisation_id).order_by(printer.c.name)
    return [PrinterView(id=row.id, name=row.name, place=row.place) for row in t.all(query)]


def by_id_or_name(t: Transaction, organisation_id: str, site_id: str, which: str) -> PrinterView:
    """The site's printer that *which* means; an id comes before a name. Raises NotFound."""
    rows = t.all(_BY_ID_OR_NAME, {"of": organisation_id, "at": site_id, "which": which, "lowered": which.lower()})
    found = next((row for row in rows if row.id == which), rows[0] if rows else None)
    if found is None:
        raise NotFound(what="printer where this job is held")
    return PrinterView(id=found.id, name=found.name, place=found.place)


def check_uri(uri: str, networks: list[sites.Network]) -> None:
    """Raises UriRefused for what no node would print to.

    A host's name cannot be judged here; its node looks it up and checks the address against the same networks.
    """
    if len(uri) > URI_LIMIT or not _PLAIN.fullmatch(uri):
        raise UriRefused(reason=f"it is longer than {URI_LIMIT} characters, or has spaces or other than ASCII ones")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UriRefused(reason="it is not a URI") from error
    if parts.scheme not in SCHEMES:
        raise UriRefused(reason=f"it does not begin with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
    if "@" in parts.netloc:
        raise UriRefused(reason="it contains a user or a password")
    if parts.fragment or port == 0:
        raise UriRefused(reason="it has a fragment or port 0")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _HOST.fullmatch(host) or host.replace(".", "").isdigit():
            raise UriRefused(reason="its host is neither a name nor an address") from None
        return
    if not any(address in network for network in networks):
        raise UriRefused(reason="its address is in none of the site's networks")
