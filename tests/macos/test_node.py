"""pullprintd as on a Mac: no systemd, no file in memory, no sandbox, no pidfd; launchd's sockets, getpeereid."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.rig import office as rig
from tests.rig.documents import pdf
from tests.rig.office import REPOSITORY, Answer, Office
from tests.rig.printers import RawPrinter
from tests.rig.processes import wait_until


@pytest.fixture(scope="module")
def mac(libbsd: str, launchd: str) -> Iterator[Office]:
    class Mac(rig.Node):
        def __init__(self, root: Path, name: str = "mac", settings: Mapping[str, str | int] | None = None) -> None:
            super().__init__(root, name, settings)
            given = [libbsd, launchd, str(self.intake), str(self.control)]
            self.process.argv = [sys.executable, "-m", "tests.macos.as_macos", *given, *self.process.argv[1:]]
            self.process._cwd = REPOSITORY

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rig, "Node", Mac)
        # CUPS is Linux's.
        settings = {"intake_accounts": ["lp", "root"], "backend_dir": "/usr/lib/cups/backend"}
        with Office(node_settings=settings) as office:  # type: ignore[arg-type]
            yield office


def test_what_is_printed_is_held_and_comes_out_uncounted(mac: Office) -> None:
    document = pdf(2)
    mac.cups.lp("pullprint", document, user=mac.account, title="mac.pdf")
    me = mac.person()
    held = me.wait_job("mac.pdf", "held")
    assert (held["owner"], held["size"]) == (mac.user, len(document)), "getpeereid let the backend in"
    wait_until("facts", lambda: (me.job("mac.pdf") or {}).get("facts"), 20)
    facts = (me.job("mac.pdf") or {})["facts"]
    assert (facts["pages"], facts["problem"]) == (None, "no-sandbox")
    with RawPrinter() as printer:
        mac.add_printer("Labels", printer.uri)
        me.release(held["id"], "Labels")
        me.wait_job("mac.pdf", "done")
        assert printer.received == [document]


def test_what_came_through_a_filters_pipe_is_held_too(mac: Office) -> None:
    mac.cups.lp("pullprint", b"a line of text\n" * 99, user=mac.account, title="mac.txt")
    me = mac.person()
    assert me.wait_job("mac.txt", "held")["size"] > 99


def test_an_upload_is_refused_with_a_sentence_and_leaves_nothing(mac: Office) -> None:
    with pytest.raises(Answer, match="no-memory-file: This computer can keep no files in memory"):
        mac.person().upload("up.pdf", pdf(1))
    assert mac.person().job("up.pdf") is None


def test_the_doctor_speaks_of_macos(mac: Office) -> None:
    told = mac.node.pullprint("doctor", "--json")
    assert "macOS has no sandbox" in told and "bubblewrap" not in told


def test_it_ran_without_a_fault(mac: Office) -> None:
    log = mac.node.process.log.read_text()
    assert "is ready" in log and "Traceback" not in log and "AttributeError" not in log
