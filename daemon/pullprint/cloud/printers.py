"""The inventory: which printers a site has, where they are, and what nodes of the site say of them."""

import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy import bindparam, delete, func, insert, select, update

from pullprint.base.errors import NotFound, PullprintError
from pullprint.base.text import printable
from pullprint.cloud import organisations, sites
from pullprint.cloud.bus import printers_topic
from pullprint.cloud.nodes import Node
from pullprint.cloud.store import AnyRow, Transaction
from pullprint.cloud.tables import printer
from pullprint.model.owner import new_printer_code
from pullprint.wire.node import PrinterState, PrinterStates
from pullprint.wire.views import CapabilitiesView, PrinterView

SCHEMES = ("ipp", "ipps", "socket", "lpd")
URI_LIMIT = 1_023
HEARD = 1_300.0
"""Seconds for which one node's word that a printer is well stands against another's that it is not: nodes tell every so
often."""
FRESH = 1_800
"""Seconds for which it counts how a printer is; what it can do counts until it says something else."""
COLLISIONS = 20
"""Codes in a row that are taken already: time for a longer one."""
_TROUBLE = 1_000
_KEYWORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}")  # RFC 8011, 5.1.4
_PLAIN = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")

_BY_ID_OR_NAME = (
    select(printer.c.id, printer.c.name, printer.c.place)
    .where(printer.c.organisation == bindparam("of"), printer.c.site == bindparam("at"))
    .where((printer.c.id == bindparam("which")) | (func.lower(printer.c.name) == bindparam("lowered")))
)


_SHOWN = select(
    printer.c.id, printer.c.name, printer.c.place, printer.c.site, printer.c.code, printer.c.ready, printer.c.trouble,
    printer.c.can, printer.c.asked,
).where(printer.c.organisation == bindparam("of"))  # fmt: skip


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
    code: str


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
        "code": _free_code(t, organisation_id),
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
    query = select(printer.c.id, printer.c.site, printer.c.name, printer.c.place, printer.c.uri, printer.c.code)
    query = query.where(printer.c.organisation == organisation_id).order_by(printer.c.site, printer.c.name)
    return [PrinterLine(*row) for row in t.all(query)]


def meant(t: Transaction, organisation_id: str, which: str) -> str:
    """The id of the one printer that has *which* as its id, code or name. Raises NotFound."""
    code, name = _tidy(which), which.lower()
    found = [p.id for p in lines(t, organisation_id) if name in (p.id, p.name.lower()) or code == p.code]
    if len(found) != 1:
        raise NotFound(what=f"single printer as {which}" if found else f"printer as {which}")
    return found[0]


def views(t: Transaction, organisation_id: str) -> list[PrinterView]:
    """What people may choose from; addresses are not their business."""
    return [_view(t, row) for row in t.all(_SHOWN.order_by(printer.c.name, printer.c.id), {"of": organisation_id})]


def view(t: Transaction, organisation_id: str, which: str) -> PrinterView:
    """The organisation's printer with this id, or with this code as a person types it. Raises NotFound."""
    query = _SHOWN.where((printer.c.id == bindparam("which")) | (printer.c.code == bindparam("code")))
    rows = t.all(query, {"of": organisation_id, "which": which.lower(), "code": _tidy(which)})
    found = next((row for row in rows if row.id == which.lower()), rows[0] if rows else None)
    if found is None:
        raise NotFound(what="printer")
    return _view(t, found)


def take(t: Transaction, sender: Node, states: PrinterStates) -> None:
    """Keep what a node says of its site's printers; others are passed over. People are woken by what is new only.

    Of a host that is not managed nothing is believed. That a printer cannot be reached may be that host's own trouble,
    so it does not replace what another one heard from the printer a moment ago.
    """
    if not sender.managed:
        return
    where = (printer.c.organisation == sender.organisation, printer.c.site == sender.site)
    said_so_far = (printer.c.ready, printer.c.trouble, printer.c.can, printer.c.asked, printer.c.asked_by)
    query = select(printer.c.id, *said_so_far)
    known = {row.id: row for row in t.all(query.where(*where).order_by(printer.c.id).with_for_update())}
    said = {
        state.printer: _said(state)
        for state in states.printers
        if state.printer in known and not (state.can is None and _heard_by_another(t, known[state.printer], sender))
    }
    for printer_id, values in said.items():
        t.run(update(printer).where(printer.c.id == printer_id).values(asked=t.now, asked_by=sender.id, **values))
    if any(_is_new(t, known[printer_id], values) for printer_id, values in said.items()):
        t.wake(printers_topic(sender.organisation))


def _heard_by_another(t: Transaction, known: AnyRow, sender: Node) -> bool:
    return bool(known.ready) and known.asked_by != sender.id and known.asked > t.now - HEARD


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


def _view(t: Transaction, row: AnyRow) -> PrinterView:
    fresh = _is_fresh(t, row)
    return PrinterView(
        id=row.id,
        name=row.name,
        place=row.place,
        site=row.site,
        code=row.code,
        ready=row.ready if fresh else None,
        trouble=row.trouble if fresh else "",
        can=CapabilitiesView.model_validate_json(row.can) if row.can else None,
    )


def _is_fresh(t: Transaction, row: AnyRow) -> bool:
    return row.asked is not None and t.now - row.asked <= FRESH


def _is_new(t: Transaction, known: AnyRow, values: Mapping[str, object]) -> bool:
    return not _is_fresh(t, known) or any(getattr(known, name) != value for name, value in values.items())


def _said(state: PrinterState) -> dict[str, object]:
    """What is stored of *state*; a printer that does not answer is still able to do what it could before."""
    said: dict[str, object] = {"ready": state.ready, "trouble": printable(state.trouble, _TROUBLE)}
    if state.can is not None:
        can = state.can.model_copy(update={"sides": _keywords(state.can.sides), "media": _keywords(state.can.media)})
        said["can"] = can.model_dump_json()
    return said


def _keywords(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if _KEYWORD.fullmatch(word)))


def _free_code(t: Transaction, organisation_id: str) -> str:
    """A code that no other printer of the organisation has."""
    tries = 0
    while True:
        code = new_printer_code() + (new_printer_code()[0] if tries >= COLLISIONS else "")
        taken = select(printer.c.id).where(printer.c.organisation == organisation_id, printer.c.code == code)
        if t.one(taken) is None:
            return code
        tries += 1


def _tidy(text: str) -> str:
    """A printer's code as it was meant: letters that are read as digits are digits."""
    return text.upper().replace("-", "").replace(" ", "").translate(str.maketrans("OIL", "011"))
