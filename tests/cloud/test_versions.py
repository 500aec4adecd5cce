"""Nodes of other versions, and databases that a newer cloud has written."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.cloud.office import NodeClient, Office
from tests.cloud.test_server import command, write_settings

from pullprint import __version__
from pullprint.base.clock import SystemClock
from pullprint.base.errors import WrittenByNewer
from pullprint.cloud import nodes
from pullprint.cloud.store import Store, opened
from pullprint.cloud.tables import inbox
from pullprint.wire import PROTOCOL, versions
from pullprint.wire.versions import beside


def holdings(node: NodeClient, **changes: object) -> dict[str, object]:
    """A list of nothing."""
    key = json.loads(node.party_key.model_dump_json())
    return {"epoch": node.epoch, "version": "0.0.9", "key": key, "last_event": node.n, "jobs": [], **changes}


async def test_the_list_of_nodes_says_what_each_runs_since_its_last_connect(office: Office) -> None:
    node = await office.join()
    answer = await node.call("POST", "/node/v1/reconcile", holdings(node))
    assert answer.status == 200 and answer.body["version"] == __version__
    line = office.store.transact(nodes.lines, "acme")[0]
    assert (line.version, line.behind) == ("0.0.9", "behind")
    assert (line.role, line.awake) == ("normal", True)
    office.clock.shift = 61
    assert not office.store.transact(nodes.lines, "acme")[0].awake
    await node.call("POST", "/node/v1/reconcile", holdings(node, version="99.0.0", role="super"))
    later = office.store.transact(nodes.lines, "acme")[0]
    assert (later.version, later.behind) == ("99.0.0", "newer") and later.seen - line.seen >= 60
    assert (later.role, later.awake) == ("super", True)
    await node.call("POST", "/node/v1/reconcile", holdings(node, version=f"{__version__}\x1b[31m"))
    assert "\x1b" not in office.store.transact(nodes.lines, "acme")[0].version
    await node.call("POST", "/node/v1/reconcile", holdings(node, version=__version__))
    assert office.store.transact(nodes.lines, "acme")[0].behind == ""


def test_how_far_behind_a_version_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "RELEASES", ("0.1.0", "0.1.1", "0.2.0", "0.10.0"))
    told = {version: beside(version, "0.10.0") for version in ("0.10.0", "0.2.0", "0.1.1", "0.1.0", "0.1.5", "0.11.0")}
    assert told == {
        "0.10.0": "", "0.2.0": "one behind", "0.1.1": "2 behind", "0.1.0": "3 behind", "0.1.5": "behind", "0.11.0": "newer",
    }  # fmt: skip
    assert beside("1") == beside("") == beside("1.2.3-rc1") == beside("0.1.0\n") == ""


def test_this_version_is_the_last_release() -> None:
    assert versions.RELEASES[-1] == __version__
    assert (Path(__file__).parents[1] / "wire" / __version__).is_dir()


async def test_what_a_newer_node_reports_beyond_our_knowledge_stops_nothing_that_follows(office: Office) -> None:
    node = await office.join()
    held = node.job_report()
    await node.report(
        {"kind": "stapled", "job": {"not": "even an id"}, "seq": []},
        {**held, "carbon": {"grams": 3}},
        {"kind": "state", "job": held["job"], "state": "levitating", "sentence": "It floats."},
        {"kind": "trace", "job": held["job"], "seq": 0, "at": 1.0, "event": "floated", "text": "Up.", "mood": "good"},
    )
    token = await office.sign_in()
    view = (await office.ask("GET", f"/api/v1/jobs/{held['job']}", token=token)).body
    assert view["state"] == "held"
    for wrong in ({"job": held["job"]}, {"kind": 7}, {"kind": ""}, []):
        answer = await node.call(
            "POST", "/node/v1/events", {"epoch": node.epoch, "events": [{"n": 9, "report": wrong}]}
        )
        assert answer.status == 400


@pytest.mark.parametrize("protocol", [0, PROTOCOL + 1, 1 << 70])
async def test_a_node_of_another_protocol_is_told_so_in_a_sentence(office: Office, protocol: int) -> None:
    node = await office.join()
    answer = await node.call("POST", "/node/v1/reconcile", holdings(node, protocol=protocol, version="9.9.9"))
    assert (answer.status, answer.code) == (409, "protocol-refused")
    assert (
        f"the cloud version {PROTOCOL}" in answer.body["sentence"] and "Held jobs are safe" in answer.body["sentence"]
    )
    assert office.store.transact(nodes.lines, "acme")[0].version != "9.9.9"

    stranger, code = NodeClient(office, "desk-2"), office.join_code()
    refused = await stranger.call("POST", "/node/v1/enrol", {**stranger.enrolment(code), "protocol": protocol})
    assert (refused.status, refused.code) == (409, "protocol-refused")
    assert (await stranger.enrol(code)).status == 200


async def test_an_item_of_a_kind_that_only_a_newer_cloud_knew_is_handed_on(office: Office) -> None:
    """It went back to this version; the item was waiting in the database."""
    node = await office.join()
    office.store.transact(
        lambda t: t.run(
            inbox.insert().values(node=node.id, seq=7, kind="dance", item='{"kind":"dance","seq":0,"tune":"polka"}')
        )
    )
    items = await node.poll()
    assert {"kind": "dance", "seq": 7} in items


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    write_settings(tmp_path)
    command(tmp_path, "organisation", "add", "acme", "Acme")
    url = f"sqlite:///{tmp_path / 'state' / 'cloud.sqlite'}"
    with opened(url, SystemClock()) as store, store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = (tmp_path / "state" / "cloud.sqlite").read_bytes()
    for words in (("organisation", "list"), ("serve",)):
        answer = command(tmp_path, *words, check=False)
        assert (
            answer.returncode == 78 and "its schema is 9999" in answer.stderr and "Nothing was changed" in answer.stderr
        )
        assert answer.stderr.count("\n") == 1
    assert (tmp_path / "state" / "cloud.sqlite").read_bytes() == before
    store = Store(url, SystemClock())
    with pytest.raises(WrittenByNewer):
        store.upgrade()
    store.close_now()


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    write_settings(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "cloud.sqlite").write_bytes(b"not a database at all" * 1_000)
    answer = command(tmp_path, "serve", check=False)
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1 and "damaged" in answer.stderr, answer.stderr
