"""Figures for Prometheus: right, for those who may see them, and without anybody's name."""

import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cloud.office import CHEAP, Office, ShiftedClock, make_settings
from tests.cloud.test_mesh import HERE, three
from tests.cloud.test_orders import release

from pullprint.cloud import app, metrics
from pullprint.cloud.config import Settings
from pullprint.cloud.tally import Tally
from pullprint.cloud.users import Passwords

TOKEN = "a-token-of-some-length"


async def fetch(office: Office, **headers: str) -> tuple[int, str]:
    async with office.http.get(office.url + "/metrics", headers=headers) as response:
        return response.status, await response.text()


def figures(text: str) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[" ".join([sample.name.removeprefix("pullprint_"), *sample.labels.values()])] = sample.value
    return found


async def test_figures_are_what_the_database_says(office: Office) -> None:
    first, second, third = await three(office)
    token = await office.sign_in()
    placed = await first.place(second, third)
    await first.hold(title="MARKER")
    await second.report({**second.job_report(), "state": "done"})
    assert (await release(office, token, placed))[0] == 202
    status, text = await fetch(office)
    assert status == 200
    found = figures(text)
    assert (found["nodes_known"], found["nodes_connected"]) == (3, 3)
    assert (found["jobs held"], found["jobs done"], found["jobs sending"]) == (2, 1, 0)
    assert (found["replicas_wanted"], found["replicas_missing"]) == (6, 2)
    assert (found["orders_issued_total"], found["orders_taken_over_total"]) == (1, 0)
    for secret in ("MARKER", "ada", "acme", "desk-1", placed):
        assert secret not in text
    await third.reconcile(role="client", endpoints=HERE)
    found = figures((await fetch(office))[1])
    assert (found["replicas_wanted"], found["replicas_missing"]) == (4, 1), "of two nodes no three copies are wanted"


async def test_metrics_of_an_empty_cloud_are_readable() -> None:
    empty = metrics.Figures(0, 0, {}, 0, 0)
    assert figures(metrics.render(empty, Tally()).decode())["nodes_known"] == 0


@pytest.fixture(params=[True, False])
async def fronted(office: Office, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Office]:
    """A cloud behind a proxy, with and without a token."""
    settings = dataclasses.replace(
        office.settings,
        proxy=True,
        state_dir=tmp_path / "fronted",
        port_file=None,
        metrics_token=TOKEN if request.param else "",
    )
    async with app.serving(settings, ShiftedClock(), Passwords(CHEAP)) as port:
        yield dataclasses.replace(office, url=f"http://127.0.0.1:{port}", settings=settings)


async def test_behind_a_proxy_only_the_token_counts(fronted: Office) -> None:
    good = 200 if fronted.settings.metrics_token else 401
    assert (await fetch(fronted))[0] == 401, "whoever comes through the proxy comes from this host"
    assert (await fetch(fronted, Authorization=f"Bearer {TOKEN}"))[0] == good
    assert (await fetch(fronted, Authorization="Bearer "))[0] == 401
    assert (await fetch(fronted, Authorization=f"Bearer {TOKEN}x", **{"X-Forwarded-For": "127.0.0.1"}))[0] == 401


async def test_other_hosts_are_refused_without_the_token(tmp_path: Path) -> None:
    address = own_address()
    if not address:
        pytest.skip("this host has no address but loopback")
    settings = dataclasses.replace(make_settings(tmp_path), host="0.0.0.0", metrics_token=TOKEN)
    async with app.serving(settings, ShiftedClock(), Passwords(CHEAP)) as port:
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(connector=connector) as http:

            async def status(host: str, token: str = "") -> int:
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                async with http.get(f"https://{host}:{port}/metrics", headers=headers) as response:
                    return response.status

            assert (await status(address), await status(address, "x" * 20), await status(address, TOKEN)) == (
                401,
                401,
                200,
            )
            assert await status("127.0.0.1") == 200, "on this host nobody needs one"


def own_address() -> str:
    """An address of this host that is not loopback; empty without one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("token", ["short", "has a space in its middle", "x" * 129, "newline\n" * 4])
def test_token_that_is_none_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(ValueError, match="metrics_token"):
        Settings(metrics_token=token)
