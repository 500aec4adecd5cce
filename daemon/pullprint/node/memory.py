"""What this node remembers of its site's printers: one memory for who looks (`watch`) and who prints (`release`)."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from pullprint.base.bell import Bell
from pullprint.base.clock import Clock
from pullprint.model.uri import PrinterUri
from pullprint.printers.delivery import Prepared
from pullprint.printers.probe import Capabilities, probe
from pullprint.wire.node import Printer

NEVER = float("-inf")


@dataclass
class PrinterState:
    """What is remembered of one printer. Times are monotonic."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    prepared: Prepared | None = None
    """A backend that was loaded for it on the mere hope of an order; until it is closed, one is enough."""
    capabilities: Capabilities | None = None
    """The latest answer, however old."""
    address: str = ""
    """The URI, as the inventory has it, that was asked for it."""
    asked: float = NEVER
    """When it was asked what `capabilities` answers."""
    proven: float = NEVER
    """When it last answered; NEVER as long as there is reason to doubt that it still would."""
    doubted: float = NEVER


class PrinterMemory:
    """The printers that were ever asked, by id."""

    def __init__(self, clock: Clock, trust: Path) -> None:
        self._clock = clock
        self._trust = trust
        self._states: dict[str, PrinterState] = {}
        self.changed = Bell()
        """Rings after each answer."""

    def state(self, printer: str) -> PrinterState:
        """What is remembered of the printer with that id."""
        return self._states.setdefault(printer, PrinterState())

    def fresh(self, printer: Printer, seconds: float) -> Capabilities | None:
        """What *printer* answered in the last *seconds*, unless there has been a reason to doubt it since."""
        state = self.state(printer.id)
        good = state.address == printer.uri and self._clock.monotonic() - state.proven <= seconds
        return state.capabilities if good else None

    async def ask(self, printer: Printer, uri: PrinterUri) -> Capabilities:
        """The answer of *printer*, which is at *uri*; it is remembered. As long as `probe` takes; never raises."""
        asked = self._clock.monotonic()
        found = await probe(uri, self._clock, self._trust)
        self.learn(printer, found, asked)
        return found

    def learn(self, printer: Printer, found: Capabilities, asked: float) -> None:
        """Remember *found*, the answer to a question put at *asked*, unless a later one is answered already."""
        state = self.state(printer.id)
        if asked < state.asked:
            return
        state.capabilities, state.address, state.asked = found, printer.uri, asked
        # What a printer said before a document failed to reach it says nothing about now.
        state.proven = self._clock.monotonic() if found.answers and asked > state.doubted else NEVER
        self.changed.ring()

    def doubt(self, printer: str) -> None:
        """A document did not reach it: ask again before the next one."""
        state = self.state(printer)
        state.proven, state.doubted = NEVER, self._clock.monotonic()
