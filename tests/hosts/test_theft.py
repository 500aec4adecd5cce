"""Who takes one disk, of any holder or of the cloud, opens no job with all that is on it."""

import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest
from tests.rig.documents import marker, pdf
from tests.rig.office import NODES
from tests.rig.sites import Hosts, copy_disk

from pullprint.base.errors import PullprintError
from pullprint.vault import keys
from pullprint.vault.generation import in_generation
from pullprint.vault.header import Header, SealDamaged
from pullprint.vault.opening import read_header
from pullprint.vault.parts import PartRefused, open_part
from pullprint.wire.mesh import KeyTable, read_table

_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass
class Loot:
    """What one disk gives away: all that may be a key, and all key tables."""

    secrets: set[bytes] = field(default_factory=set)
    tables: list[KeyTable] = field(default_factory=list)
    jobs: list[Path] = field(default_factory=list)

    def __or__(self, other: "Loot") -> "Loot":
        return Loot(self.secrets | other.secrets, self.tables + other.tables, self.jobs + other.jobs)


def rob(disk: Path, word: str) -> Loot:
    """Go through *disk*, on which *word* must stand nowhere."""
    loot = Loot()
    for path in disk.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        assert word.encode() not in content, f"the document can be read in {path}"
        if content.startswith(b"SQLite format 3"):
            found = list(values(path))
        else:
            found = [content]
        for value in found:
            loot.secrets |= set(guesses(value))
            loot.tables += tables(value)
        if path.parent.name == "jobs" and re.fullmatch(r"[0-9a-f]{32}", path.name):
            loot.jobs.append(path)
    return loot


def values(database: Path) -> Iterator[bytes]:
    """All that is in a SQLite database."""
    connection = sqlite3.connect(database)
    try:
        names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
        for name in names:
            for row in connection.execute(f'select * from "{name}"'):
                for value in row:
                    if isinstance(value, str):
                        yield value.encode()
                    elif isinstance(value, bytes):
                        yield value
    finally:
        connection.close()


def guesses(value: bytes) -> Iterator[bytes]:
    """What in *value* may be a key of 32 bytes, raw or hexadecimal."""
    if len(value) == 32:
        yield value
    for found in re.findall(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", value):
        yield bytes.fromhex(found.decode())


def tables(value: bytes) -> Iterator[KeyTable]:
    for token in _TOKEN.findall(value):
        try:
            yield read_table(token.decode())
        except PullprintError:
            continue


def opens(header: Header, loot: Loot) -> bool:
    """Whether any key, or any two parts that any key opens, give the data key."""
    for secret in loot.secrets:
        try:
            keys._check(header, secret)
        except SealDamaged:
            continue
        return True
    generations = [None, *(table for table in loot.tables if table.job == header.job)]
    for table in generations:
        current = in_generation(header, table)
        found = {}
        for number, slot in enumerate(current.slots):
            for secret in loot.secrets:
                try:
                    found[number] = open_part(
                        slot.sealed, secret, job=header.job, party=slot.party, key=slot.key,
                        generation=current.generation,
                    )  # fmt: skip
                except (PartRefused, ValueError):
                    continue
        for pair in combinations(found, 2):
            try:
                keys.unwrap(current, {number: found[number] for number in pair}, header)
            except SealDamaged:
                continue
            return True
    return False


@dataclass
class Robbery:
    word: str
    job: str
    disks: dict[str, Path]

    def loot(self, *names: str) -> Loot:
        loot = Loot()
        for name in names:
            loot |= rob(self.disks[name], self.word)
        return loot


@pytest.fixture(scope="module")
def robbery(site: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Robbery:
    """Disks, taken while a job waits in three copies; none of them saw an orderly end."""
    word = marker()
    site.submit("reception", "secret", pdf(marker=word))
    job = site.wait_copies("secret")["id"]
    folder = tmp_path_factory.mktemp("disks")
    disks = {}
    for name in ("cloud", *NODES[:3]):
        site.kill(name)
        state = site.cloud.state if name == "cloud" else site.host(name).state
        disks[name] = folder / name
        copy_disk(state, disks[name])
    site.heal()
    os.sync()
    return Robbery(word, str(job), disks)


@pytest.mark.parametrize("name", ["cloud", *NODES[:3]])
def test_one_disk_opens_no_job(robbery: Robbery, name: str) -> None:
    """Not even with the sealed file and the key tables of all the others, which the cloud does not keep."""
    loot, others = robbery.loot(name), robbery.loot(*NODES[:3])
    assert loot.secrets, "there must be keys of some kind"
    assert any(table.job == robbery.job for table in others.tables), "without the table the attack proves nothing"
    header = read_header(robbery.disks["reception"] / "jobs" / robbery.job)
    assert (name == "cloud") == (not loot.jobs)
    assert not opens(header, Loot(loot.secrets, others.tables))


@pytest.mark.parametrize("names", list(combinations(["cloud", *NODES[:3]], 2)), ids="+".join)
def test_two_disks_do_which_shows_that_the_attack_is_one(robbery: Robbery, names: tuple[str, str]) -> None:
    header = read_header(robbery.disks["reception"] / "jobs" / robbery.job)
    assert opens(header, robbery.loot(*names))


def test_what_runs_keeps_no_document_on_the_disk(hosts: Hosts) -> None:
    word = marker()
    hosts.submit("workshop", "running", pdf(marker=word))
    hosts.wait_copies("running")
    seen = [path for disk in hosts.disks() for path in disk.rglob("*") if path.is_file()]
    assert len(seen) > 8
    assert [path for path in seen if word.encode() in path.read_bytes()] == []
