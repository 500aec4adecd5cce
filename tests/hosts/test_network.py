"""The rig itself: a cut that lets something through would make every other test here worthless."""

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.rig.namespaces import Network, enter, inside


@pytest.fixture
def network() -> Iterator[Network]:
    with Network("one", "two", "three") as network:
        yield network


def reaches(network: Network, one: str, two: str) -> bool:
    """Whether a connection from *one* to *two* can be made; a refusal would be an answer, too."""
    with inside(network.namespace(two)):
        listener = socket.create_server((network.address(two), 0))
    with inside(network.namespace(one)):
        probe = socket.socket()
    probe.settimeout(0.5)
    with listener, probe:
        try:
            probe.connect(listener.getsockname())
        except TimeoutError:
            return False
        return True


def test_hosts_reach_each_other_and_nobody_else(network: Network) -> None:
    assert reaches(network, "one", "two") and reaches(network, "three", "one")
    with inside(network.namespace("one")):
        outside = socket.socket()
    with outside, pytest.raises(OSError, match="unreachable"):
        outside.connect(("192.0.2.1", 80))


def test_a_cut_is_silence_both_ways_and_heals(network: Network) -> None:
    network.cut("one", "two")
    assert not reaches(network, "one", "two") and not reaches(network, "two", "one")
    assert reaches(network, "one", "three")
    network.heal()
    assert reaches(network, "one", "two")


def test_a_cut_silences_connections_that_stand(network: Network) -> None:
    with inside(network.namespace("two")):
        listener = socket.create_server((network.address("two"), 0))
    with inside(network.namespace("one")):
        client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    with listener, client, server:
        server.settimeout(0.5)
        network.cut("two", "one")
        client.sendall(b"lost")
        with pytest.raises(TimeoutError):
            server.recv(10)
        network.heal()
        server.settimeout(10)
        assert server.recv(10) == b"lost", "TCP sends again what a cut has swallowed"


def test_partitions_divide(network: Network) -> None:
    network.partition(["one"], ["two", "three"])
    assert reaches(network, "two", "three") and not reaches(network, "one", "three")
    network.partition(["one", "two"])
    assert reaches(network, "one", "two") and reaches(network, "one", "three")


def test_a_slow_link_is_slow(network: Network) -> None:
    network.slow("one", "1mbit")
    with inside(network.namespace("two")):
        listener = socket.create_server((network.address("two"), 0))
    with inside(network.namespace("one")):
        client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    with listener, client, server:
        began = time.monotonic()
        client.sendall(bytes(200_000))
        client.shutdown(socket.SHUT_WR)
        while server.recv(1 << 16):
            pass
        assert 1.0 < time.monotonic() - began < 10


def test_nothing_is_left_behind() -> None:
    with Network("here") as network:
        name = network.namespace("here")
        assert subprocess.run(enter(name, ["true"]), check=False).returncode == 0
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert name not in listed
