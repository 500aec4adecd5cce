"""A host that was shut out is refused by every peer: at once, and also by those whom the cloud cannot tell."""

import http.client
import json
import ssl
import time
from collections.abc import Iterator

import pytest
from tests.rig.namespaces import inside
from tests.rig.office import ORGANISATION, Node
from tests.rig.processes import wait_until
from tests.rig.sites import Hosts


@pytest.fixture
def fresh() -> Iterator[Hosts]:
    """A site of its own, because nobody comes back from this."""
    with Hosts(printers=()) as hosts:
        yield hosts


def knock(hosts: Hosts, guest: Node, at: Node) -> int:
    """The status that *at* answers *guest*'s certificate with; 0: not even the connection stands."""
    membership = json.loads((guest.state / "membership.json").read_text())
    certificate = hosts.root / f"{guest.name}.pem"
    certificate.write_text(membership["certificate"])
    tls = ssl.create_default_context(cadata=membership["authority"])
    tls.check_hostname = False
    tls.load_cert_chain(certificate, guest.state / "keys" / "mesh.pem")
    address, _, port = at.mesh.rpartition(":")
    connection = http.client.HTTPSConnection(address, int(port), context=tls, timeout=5)
    try:
        with inside(guest.process.namespace):
            connection.connect()
        connection.request("GET", "/mesh/v1/hello")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def test_a_host_that_was_shut_out_is_refused_within_five_seconds(fresh: Hosts) -> None:
    guest, peers = fresh.host("workshop"), [fresh.host("reception"), fresh.host("accounting")]
    assert [knock(fresh, guest, peer) for peer in peers] == [200, 200]
    began = time.monotonic()
    fresh.cloud.admin("node", "revoke", ORGANISATION, "workshop")
    revoked = time.monotonic()
    wait_until("its refusal", lambda: all(knock(fresh, guest, peer) in (0, 403) for peer in peers), 10, every=0.1)
    assert time.monotonic() - revoked < 5, time.monotonic() - began
    assert knock(fresh, peers[0], peers[1]) == 200


def test_a_peer_without_the_cloud_hears_of_it_from_another(fresh: Hosts) -> None:
    guest, far = fresh.host("workshop"), fresh.host("accounting")
    fresh.cut("cloud", "accounting")
    fresh.cloud.admin("node", "revoke", ORGANISATION, "workshop")
    wait_until("its refusal", lambda: knock(fresh, guest, far) in (0, 403), 60, every=0.5)
    assert knock(fresh, fresh.host("reception"), far) == 200


def test_a_connection_that_stood_before_is_no_way_in(fresh: Hosts) -> None:
    """Copies of what is printed from now on go to the other one only."""
    fresh.submit("reception", "before")
    fresh.wait_copies("before")
    fresh.cloud.admin("node", "revoke", ORGANISATION, "workshop")
    wait_until("its refusal", lambda: knock(fresh, fresh.host("workshop"), fresh.host("reception")) in (0, 403), 10)
    fresh.submit("reception", "after")
    job = fresh.wait_copies("after", 2)
    time.sleep(2)
    assert not (fresh.host("workshop").state / "jobs" / job["id"]).exists()
