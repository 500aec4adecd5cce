"""A cloud that has too much to do is left alone for as long as it asks for."""

import asyncio
from typing import Any

from tests.node.host import Host

from pullprint.base.clock import SystemClock
from pullprint.node.channel import Channel
from pullprint.node.client import CloudRefused


class Overrun:
    """Sends everybody away."""

    host = "cloud.example.com"

    async def get(self, *_: Any) -> None:
        raise CloudRefused(503, "store-busy", "A sentence.", 17.0)


class Pausing(SystemClock):
    """Says how long the first sleep is to be, which does not end."""

    def __init__(self) -> None:
        self.asked: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def sleep(self, seconds: float) -> None:
        self.asked.set_result(seconds)
        await asyncio.Event().wait()


async def test_node_does_not_come_again_before_the_cloud_wants_it(host: Host) -> None:
    clock, nothing = Pausing(), None
    channel = Channel(Overrun(), host.site, host.holder, host.releaser, nothing, clock)  # type: ignore[arg-type]
    task = asyncio.create_task(channel.run())
    assert await asyncio.wait_for(clock.asked, 10) == 17.0
    assert channel.trouble == "A sentence."
    task.cancel()
    await asyncio.wait([task])
