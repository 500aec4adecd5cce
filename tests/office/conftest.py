"""One whole office for each module: starting one takes seconds."""

from collections.abc import Iterator

import pytest
from tests.rig.office import Office
from tests.rig.printers import IppPrinter, LpdPrinter, RawPrinter


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    with Office() as office:
        yield office


@pytest.fixture(scope="module")
def ipp_printer(office: Office) -> Iterator[IppPrinter]:
    with IppPrinter("Lobby") as printer:
        office.add_printer("Lobby", printer.uri)
        yield printer


@pytest.fixture(scope="module")
def raw_printer(office: Office) -> Iterator[RawPrinter]:
    with RawPrinter() as printer:
        office.add_printer("Labels", printer.uri)
        yield printer


@pytest.fixture(scope="module")
def lpd_printer(office: Office) -> Iterator[LpdPrinter]:
    with LpdPrinter() as printer:
        office.add_printer("Cellar", printer.uri)
        yield printer
