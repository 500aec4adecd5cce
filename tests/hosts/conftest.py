"""Three nodes, a cloud and two printers, each in a network namespace of its own; one such site for each module."""

from collections.abc import Iterator

import pytest
from tests.rig.namespaces import cannot_make_networks
from tests.rig.office import Person
from tests.rig.sites import Hosts


@pytest.fixture(scope="session", autouse=True)
def _networks() -> None:
    if why := cannot_make_networks():
        pytest.skip(f"No hosts can be made here: {why}.")


@pytest.fixture(scope="module")
def site() -> Iterator[Hosts]:
    with Hosts(printers=("lobby",), sinks=("labels",)) as hosts:
        yield hosts


@pytest.fixture
def hosts(site: Hosts) -> Iterator[Hosts]:
    """The module's site; whatever a test did to it is mended afterwards."""
    yield site
    site.heal()
    for node in site.nodes:
        node.wait_connected(60)
    site.wait_mesh(60)


@pytest.fixture
def me(hosts: Hosts) -> Person:
    return hosts.person()
