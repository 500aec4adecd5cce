"""From a host with CUPS as Debian installs it to paper: join, queue, doctor, ``lp`` and release, as an admin types it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rig.cups import PPD, PrivateCups
from tests.rig.documents import pdf
from tests.rig.office import ORGANISATION, SITE, Cloud, Node, cups_paths
from tests.rig.printers import IppPrinter
from tests.rig.processes import wait_until

# What Debian's cupsd.conf leaves at its default.
DEBIAN = "PreserveJobFiles 86400\nJobRetryLimit 5\nMaxJobTime 3h\nDirtyCleanInterval 30\nPreserveJobHistory Yes\n"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    cloud.admin("organisation", "add", ORGANISATION, "Demo Office")
    cloud.admin("site", "add", ORGANISATION, SITE, "--network", "127.0.0.0/8", "--owner-rule", "{user}@example.com")
    cloud.admin("user", "add", ORGANISATION, "root@example.com")
    cloud.start()
    yield cloud
    cloud.process.stop()


def test_join_does_all_and_it_prints(cloud: Cloud, tmp_path: Path) -> None:
    node = Node(tmp_path)
    with IppPrinter("Lobby") as printer, PrivateCups({"PULLPRINT_INTAKE": str(node.intake)}, settings=DEBIAN) as cups:
        cloud.admin("printer", "add", ORGANISATION, SITE, "Lobby", printer.uri)
        node.configure({"cups_server": str(cups.socket), **cups_paths(cups)})
        try:
            node.start()
            said = join(cloud, node, cups)
            assert "has joined demo at office" in said and "Lobby" in said
            assert "Queue pullprint is ready" in said and "lp -d pullprint FILE" in said
            assert "`PreserveJobFiles No`" in said
            cups.restart()
            doctor = json.loads(node.pullprint("doctor", "--json"))
            assert [finding for finding in doctor if finding["level"] != "ok"] == []
            [command] = re.findall(r"Print: (lp .*) FILE", said)
            document = tmp_path / "report.pdf"
            document.write_bytes(pdf())
            cups.run(*command.split(), "-t", "report.pdf", str(document), user="root")
            wait_until("the held job", lambda: "report.pdf" in node.pullprint("jobs"))
            assert "is printed at Lobby" in node.pullprint("release")
            assert len(printer.documents()) == 1
        finally:
            node.close()


def join(cloud: Cloud, node: Node, cups: PrivateCups) -> str:
    """What ``pullprint join CLOUD CODE --yes`` says on this host."""
    code = json.loads(cloud.admin("join-code", ORGANISATION, SITE, "--json"))["code"]
    return node.pullprint(
        "join", cloud.url, code, "--ca", str(cloud.authority), "--yes", "--cups", str(cups.socket), "--ppd", str(PPD),
        "--cups-conf", str(cups.root / "etc" / "cupsd.conf"),
    )  # fmt: skip
