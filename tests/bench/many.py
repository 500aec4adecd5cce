"""A cloud with thousands of nodes in its books, and what a process takes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import insert
from tests.bench.crowd import key_of
from tests.rig.office import ORGANISATION, RULE, Cloud

from pullprint.base.clock import SystemClock
from pullprint.cloud import inbox, organisations, sites
from pullprint.cloud.store import Store, Transaction
from pullprint.cloud.tables import node
from pullprint.wire.signature import node_id

SITE_NODES = 50
"""Nodes of one site."""
TICK = os.sysconf("SC_CLK_TCK")


@contextmanager
def many(count: int) -> Iterator[tuple[Cloud, Store]]:
    """A cloud, not started yet, to which the nodes of a `crowd` of *count* belong; and its database, for commands."""
    with TemporaryDirectory(prefix="pullprint-bench-") as folder:
        cloud = Cloud(Path(folder))
        store = Store(f"sqlite:///{cloud.state / 'cloud.sqlite'}", SystemClock())
        try:
            store.upgrade()
            store.transact(_fill, count)
            yield cloud, store
        finally:
            store.close_now()
            cloud.process.stop()


def site_of(number: int) -> str:
    """The site of a node of the crowd."""
    return f"site{number // SITE_NODES}"


def _fill(t: Transaction, count: int) -> None:
    organisations.add(t, ORGANISATION, "Demo Office")
    for number in range(0, max(count, 1), SITE_NODES):
        sites.add(t, ORGANISATION, site_of(number), ["127.0.0.0/8"], RULE, 86_400)
    rows = []
    for number in range(count):
        identity = key_of(number).public_key().public_bytes_raw()
        rows.append(
            {
                "id": node_id(identity), "organisation": ORGANISATION, "site": site_of(number), "name": f"host{number}",
                "identity": identity, "managed": True, "key_id": "day-1", "key_public": bytes(32),
                "key_expires": 4e9, "version": "0", "joined": t.now, "seen": t.now,
            }
        )  # fmt: skip
    t.run(insert(node), rows)


def tell_all(t: Transaction) -> None:
    """An administrator changes something that every node is told."""
    sites.changed(t, ORGANISATION)


def tell(t: Transaction, node_number: int) -> None:
    """The same for one node."""
    inbox.put_config(t, node_id(key_of(node_number).public_key().public_bytes_raw()))


def resident(pid: int) -> float:
    """KiB that the process has in memory; what the kernel keeps for its sockets is not among it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise ProcessLookupError(pid)


def processor(pid: int) -> float:
    """Seconds of processor time that the process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK
