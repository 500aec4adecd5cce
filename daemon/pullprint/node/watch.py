"""Looking after the site's IPP printers: how each of them is and what it can do, for the page that people choose from.

Two loops share the `PrinterMemory`. One asks every such printer soon after a configuration has come, and then every few
minutes. The other tells the cloud what is new, also what a release has just learned. The cloud takes an answer for half
an hour, so what stays the same is told again before that; and all of it after each reconnect, which always begins with
a configuration.
"""

import asyncio
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import SystemRandom

from pullprint.base.clock import Clock
from pullprint.base.errors import PullprintError
from pullprint.model.uri import BadUri, check_uri
from pullprint.node.client import CloudClient
from pullprint.node.memory import PrinterMemory
from pullprint.node.site import Site
from pullprint.printers.probe import Capabilities
from pullprint.printers.uri import NoSuchHost, resolve
from pullprint.wire import node as wire
from pullprint.wire.views import CapabilitiesView

log = logging.getLogger(__name__)

EVERY = 300.0
"""Seconds between two rounds, plus or minus a fifth."""
SOON = 2.0
"""Seconds within which a round begins after a configuration: the nodes of a site do not all ask at once."""
AGAIN = 60.0
"""Seconds for which a good answer spares a printer the next question."""
FEW = 4
"""Printers that are asked at a time."""
LIMIT = 15.0
"""Seconds for one printer, its name included."""
GATHER = 0.5
"""Seconds from an answer to telling it: others are coming, and a release may be under way."""
REPEAT = 900.0
"""Seconds after which an answer is told although it is the same."""
AT_ONCE = 100
"""Printers in one request."""

UNKNOWN_NAME = "The printer's name is not known on its network. Tell who looks after the printers."
BAD_ADDRESS = "The printer's address is not allowed at its site. Tell who looks after the printers."
TOO_SLOW = "The printer is too slow to say how it is."

_SIDES = ("one-sided", "two-sided-long-edge", "two-sided-short-edge")
# PWG 5101.1 self-describing names. The rest of media-supported is trays, types, and the bounds of custom sizes.
_MEDIA = re.compile(r"(?!custom_m(in|ax)_)[a-z0-9][a-z0-9._-]*_[0-9.]+x[0-9.]+(mm|in)")
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class _Told:
    state: wire.PrinterState
    at: float


class Watch:
    """Asks the printers of the site, and tells the cloud what they say."""

    def __init__(self, site: Site, memory: PrinterMemory, client: CloudClient, clock: Clock) -> None:
        self._site = site
        self._memory = memory
        self._client = client
        self._clock = clock
        self._few = asyncio.Semaphore(FEW)
        self._told: dict[str, _Told] = {}

    async def run(self) -> None:
        """Look and tell until cancelled; no printer and no cloud can stop it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look(), name="watch: look")
            group.create_task(self._tell(), name="watch: tell")

    async def _look(self) -> None:
        while True:
            ticket = self._site.changed.ticket
            if self._site.joined:
                await self._round()
            if await self._site.changed.wait(ticket, EVERY * _random.uniform(0.8, 1.2)):
                await self._clock.sleep(_random.uniform(0, SOON))
                self._told.clear()
                self._memory.changed.ring()

    async def _round(self) -> None:
        async with asyncio.TaskGroup() as group:
            for printer in filter(speaks, self._site.config.printers):
                group.create_task(self._visit(printer), name="watch: ask")

    async def _visit(self, printer: wire.Printer) -> None:
        async with self._few:
            if self._memory.fresh(printer, AGAIN):
                return
            asked = self._clock.monotonic()
            try:
                async with asyncio.timeout(LIMIT):
                    await self._ask(printer)
            except TimeoutError:
                self._note_trouble(printer, TOO_SLOW, asked)
            except BadUri:
                self._note_trouble(printer, BAD_ADDRESS, asked)
            except NoSuchHost:
                self._note_trouble(printer, UNKNOWN_NAME, asked)
            except Exception:
                log.exception("a printer could not be asked")

    async def _ask(self, printer: wire.Printer) -> None:
        uri = await resolve(check_uri(printer.uri), self._site.networks)
        await self._memory.ask(printer, uri)

    def _note_trouble(self, printer: wire.Printer, trouble: str, asked: float) -> None:
        found = Capabilities(answers=False, checked=self._clock.now(), trouble=trouble)
        self._memory.learn(printer, found, asked)

    async def _tell(self) -> None:
        while True:
            ticket = self._memory.changed.ticket
            try:
                await self._say()
            except PullprintError as error:
                # It is told again after the next answer, and all of it when the cloud is back.
                log.info("what the printers say was not told: %s", error.code)
            except Exception:
                log.exception("what the printers say was not told")
            await self._memory.changed.wait(ticket, REPEAT)
            await self._clock.sleep(GATHER)

    async def _say(self) -> None:
        news = self._news()
        while some := tuple(islice(news, AT_ONCE)):
            told, now = self._told, self._clock.monotonic()
            await self._client.tell("/node/v1/printers", wire.PrinterStates(printers=some))
            told.update((state.printer, _Told(state, now)) for state in some)

    def _news(self) -> Iterator[wire.PrinterState]:
        for printer in self._site.config.printers if self._site.joined else ():
            known = self._memory.state(printer.id)
            if known.capabilities is None or known.address != printer.uri:
                continue
            told, state = self._told.get(printer.id), _state(printer, known.capabilities)
            asked_since = told is not None and known.asked > told.at
            if told is None or told.state != state or (asked_since and self._clock.monotonic() - told.at > REPEAT):
                yield state


def speaks(printer: wire.Printer) -> bool:
    """Whether there is a way to ask it. A connection to a socket or lpd printer that brings no document may keep the
    next one waiting, or cost a sheet of paper."""
    return printer.uri.partition(":")[0].lower() in ("ipp", "ipps")


def described(found: Capabilities) -> CapabilitiesView:
    """What a printer said that it can do, as the page needs it: media that are loaded first."""
    media = (name for name in dict.fromkeys((*found.media_ready, *found.media)) if _MEDIA.fullmatch(name))
    color = "color" in found.color_modes if found.color is None and found.color_modes else found.color
    return CapabilitiesView(
        color=color,
        sides=tuple(side for side in _SIDES if side in found.sides),
        media=tuple(islice(media, 64)),
        page_ranges=bool(found.page_ranges),
        copies=min(max(found.copies or 1, 1), 9_999),
    )


def _state(printer: wire.Printer, found: Capabilities) -> wire.PrinterState:
    return wire.PrinterState(
        printer=printer.id,
        ready=found.ready,
        trouble=" ".join(found.troubles)[:1_000],
        can=described(found) if found.answers else None,
    )
