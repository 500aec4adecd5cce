"""A cloud of another version: what it says beyond our knowledge is passed over, and a protocol that does not fit is
named."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from tests.node.host import Host
from tests.rig.printers import RawPrinter

from pullprint.model.states import State
from pullprint.node.channel import Channel
from pullprint.wire.node import Acknowledged, Differences, InboxAnswer, SignedConfig
from pullprint.wire.types import Message

Answer = TypeVar("Answer", bound=Message)


class OtherCloud:
    """Answers as a newer cloud would, in JSON; *items* come with the first poll."""

    host = "cloud.example.com"

    def __init__(self, host: Host, items: list[dict[str, Any]], **config: Any) -> None:
        self._items = items
        self._now = host.clock.now()
        self._config = {
            "config": host.organisation.config(host.identity.node, host.printers),
            "now": self._now,
        } | config
        self.asked: list[str] = []
        self.polls: list[str] = []

    async def get(self, path: str, answer: type[Answer], query: str = "", timeout: float = 0.0) -> Answer | None:
        self.asked.append(path)
        if answer is SignedConfig:
            return self._read(answer, self._config)
        assert answer is InboxAnswer
        self.polls.append(query)
        if len(self.polls) == 1:
            return self._read(answer, {"items": self._items, "now": self._now})
        await asyncio.Event().wait()
        return None

    async def post(self, path: str, message: Message | bytes, answer: type[Answer]) -> Answer:
        self.asked.append(path)
        if answer is Acknowledged:
            return self._read(answer, {"n": 1 << 30})
        assert answer is Differences
        return self._read(answer, {"report": [], "cancelled": [], "now": self._now, "version": "9.9.9"})

    def _read(self, answer: type[Answer], values: dict[str, Any]) -> Answer:
        return answer.model_validate_json(json.dumps({**values, "from_the_future": {"a": [1]}}))


@asynccontextmanager
async def connected(host: Host, cloud: OtherCloud) -> AsyncIterator[Channel]:
    """A channel to *cloud*, as long as the block lasts."""
    channel = Channel(cloud, host.site, host.holder, host.releaser, None, host.clock)  # type: ignore[arg-type]
    task = asyncio.create_task(channel.run())
    try:
        yield channel
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_an_item_of_an_unknown_kind_is_noted_and_acknowledged_and_stops_nothing(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await host.hold(b"one"), await host.hold(b"two")
    items = [
        {"kind": "cancel", "seq": 1, "job": first.id, "by": "ada", "why": "paper saved"},
        {"kind": "dance\x1b[31m", "seq": 2, "job": {"not": "an id"}},
        {"kind": "cancel", "seq": 3, "job": second.id, "by": "ada"},
        {"kind": "dance", "seq": 4},
    ]
    cloud = OtherCloud(host, items)
    with caplog.at_level(logging.WARNING):
        async with connected(host, cloud) as channel:
            await until(lambda: len(cloud.polls) == 2)
            assert channel.connected and channel.cloud_version == "9.9.9"
    assert cloud.polls == ["since=0", "since=4"]
    assert {(await host.record(job.id)).state for job in (first, second)} == {State.CANCELLED}
    assert "something of the kind dance" in caplog.text


@pytest.mark.parametrize(("oldest", "newest", "fits"), [(1, 1, True), (1, 2, True), (2, 3, False), (0, 0, False)])
async def test_a_cloud_whose_protocol_does_not_fit_is_named_and_nothing_else_is_said_to_it(
    host: Host, oldest: int, newest: int, fits: bool
) -> None:
    cloud = OtherCloud(host, [], oldest=oldest, protocol=newest)
    async with connected(host, cloud) as channel:
        await until(lambda: channel.connected or channel.trouble)
        assert channel.connected is fits
        if not fits:
            assert f"the host speaks version 1 of their protocol, the cloud version {newest}" in channel.trouble
            assert set(cloud.asked) == {"/node/v1/config"}


async def make_newer(host: Host, job: str) -> bytes:
    """The sealed file of *job* gets a format that nobody knows yet; what is in it now."""
    path = host.holder.path(job)
    data = bytearray(path.read_bytes())
    data[8:10] = (2).to_bytes(2, "big")
    path.write_bytes(data)
    return bytes(data)


async def test_a_job_of_a_newer_format_is_kept_and_says_what_to_do(host: Host, sink: RawPrinter) -> None:
    record = await host.hold(b"a line\n", content_type="application/octet-stream")
    data = await make_newer(host, record.id)
    await host.releaser.execute(host.order(record, "Sink"))
    after = await host.record(record.id)
    assert after.state is State.HELD and "sealed by a newer Pullprint (format 2)" in after.sentence
    assert host.holder.path(record.id).read_bytes() == data and sink.received == []


async def test_an_index_made_anew_leaves_jobs_of_a_newer_format_and_their_keys_alone(host: Host) -> None:
    record = await host.hold(b"a line\n", content_type="application/octet-stream")
    path, data = host.holder.path(record.id), await make_newer(host, record.id)
    await host.holder.read(lambda index: index._db.executescript(
        "DELETE FROM job; INSERT INTO meta VALUES ('rebuilding', '1');"
    ))  # fmt: skip
    keys = host.keyring.names()
    await host.holder.start(3_600)
    host.clock.now = lambda: 4e9  # type: ignore[method-assign]
    await host.holder.keep_house(None)
    assert path.read_bytes() == data and host.keyring.names() == keys

    data = data[:8] + (1).to_bytes(2, "big") + data[10:]
    path.write_bytes(data)  # the newer version is back
    await host.holder.start(3_600)
    again = await host.record(record.id)
    assert again.state is State.HELD and again.vote.lost, "nobody knows what became of its orders"


async def test_a_configuration_that_was_damaged_on_disk_is_fetched_anew(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    path = host.settings.state_dir / "site.jws"
    for damage in (b"", b"a.b.c", b"\xff", path.read_bytes()[:-4]):
        path.write_bytes(damage)
        host.site._config = None
        host.site.load()
        assert host.site.member and not host.site.joined and "fetched anew" in caplog.text
        async with connected(host, OtherCloud(host, [])) as channel:
            await until(lambda: channel.connected)
        assert host.site.joined
        host.site.load()
        assert host.site.joined
