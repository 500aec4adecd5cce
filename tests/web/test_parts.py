"""The page's files as they are served: small, quick, installable."""

import gzip
import json
import re
import time

import aiohttp
import pytest
from playwright.async_api import Browser, expect
from tests.web.conftest import PHONE, new_context, sign_in
from tests.web.looks import card, pick
from tests.web.standin import Standin, job

from pullprint.cloud.page import FOLDER, POLICY, VIEWS

pytestmark = pytest.mark.asyncio(loop_scope="module")
FIRST_VIEW = 100 * 1024
"""Bytes, compressed."""
INTERACTIVE = 1.5
"""Seconds on a slow phone: 1.0 is the aim, the rest is for a machine that others use too."""
# Lighthouse's slow 4G; and a phone's processor beside a desk's.
SLOW = {"offline": False, "latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
SLOWER = 4
WHEN_INTERACTIVE = """new Promise((resolve) => globalThis.interactive ? resolve(interactive)
  : addEventListener("interactive", () => resolve(interactive)))"""


async def test_the_manifest_installs_the_page_and_takes_what_is_shared(browser: Browser, cloud: Standin) -> None:
    assert browser.is_connected()
    async with aiohttp.ClientSession() as http:
        async with http.get(cloud.url + "static/app.webmanifest") as answer:
            manifest = json.loads(await answer.text())
            assert answer.content_type == "application/manifest+json"
        sizes = set()
        for icon in manifest["icons"]:
            async with http.get(cloud.url + icon["src"][1:]) as answer:
                assert (answer.status, answer.content_type) == (200, icon["type"])
                assert "immutable" in answer.headers["Cache-Control"]
                sizes.add((icon["sizes"], icon.get("purpose", "any")))
                assert len(await answer.read()) < 16_384
        assert sizes >= {("192x192", "any"), ("512x512", "any"), ("512x512", "maskable")}
        assert manifest["share_target"]["action"] in VIEWS and manifest["share_target"]["method"] == "POST"
        for address in (manifest["start_url"], *(shortcut["url"] for shortcut in manifest["shortcuts"])):
            assert address in VIEWS


async def test_views_and_files_come_compressed_with_lasting_addresses(cloud: Standin) -> None:
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        pages = set()
        for view in VIEWS:
            async with http.get(cloud.url + view[1:].format(id="p1")) as answer:
                assert answer.status == 200 and answer.headers["Content-Encoding"] == "gzip"
                assert answer.headers["Content-Security-Policy"] == POLICY
                assert answer.headers["Permissions-Policy"].startswith("camera=(self)")
                pages.add(gzip.decompress(await answer.read()))
        [page] = pages
        app = re.search(rb'src="/(static/~[0-9a-f]{12}/)app.js"', page)
        assert app
        async with http.get(cloud.url + app[1].decode() + "app.js", headers={"Accept-Encoding": "identity"}) as answer:
            assert "Content-Encoding" not in answer.headers and "immutable" in answer.headers["Cache-Control"]
            assert await answer.read() == (FOLDER / "static" / "app.js").read_bytes()
        for gone in ("static/~000000000000/app.js", "static/..%2findex.html", "static/views", "static/de.po"):
            async with http.get(cloud.url + gone) as answer:
                assert answer.status == 404, gone
        async with http.get(cloud.url + "sw.js") as answer:
            assert answer.headers["Cache-Control"] == "no-cache"
            assert app[1] in gzip.decompress(await answer.read())


async def test_the_first_view_is_small_and_quick_on_a_slow_phone(
    browser: Browser, cloud: Standin, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.add(*(job(n, f"{n}.pdf", created=int(time.time())) for n in range(1, 9)))
    known = await new_context(browser)
    page = await known.new_page()
    await page.goto(cloud.url)
    await sign_in(page)
    state = await known.storage_state()
    await known.close()
    figures = []
    for _ in range(3):
        context = await new_context(browser, storage_state=state, viewport=PHONE, has_touch=True)
        page = await context.new_page()
        tools = await context.new_cdp_session(page)
        sizes: dict[str, int] = {}
        tools.on(
            "Network.loadingFinished",
            lambda event, sizes=sizes: sizes.update({event["requestId"]: event["encodedDataLength"]}),
        )
        await tools.send("Network.enable")
        await tools.send("Network.emulateNetworkConditions", SLOW)
        await tools.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
        # Interactive: a job can be chosen, and the browser has had the time to draw it.
        await page.add_init_script(
            """new MutationObserver((_, observer) => {
              if (!document.querySelector(".card .check")) return;
              observer.disconnect();
              requestAnimationFrame(() => setTimeout(() => {
                globalThis.interactive = performance.now();
                dispatchEvent(new Event("interactive"));
              }));
            }).observe(document, { childList: true, subtree: true });"""
        )
        await page.goto(cloud.url, wait_until="commit")
        figures.append(await page.evaluate(WHEN_INTERACTIVE) / 1000)
        await pick(page, "8.pdf")
        await expect(card(page, "8.pdf").get_by_role("checkbox")).to_be_checked()
        await page.wait_for_load_state("load")
        assert 10_000 < sum(sizes.values()) < FIRST_VIEW
        await context.close()
    with capsys.disabled():
        print(f"\nfirst view: {sum(sizes.values()) / 1024:.1f} KiB, interactive after {min(figures):.2f} s (aim 1.0)")
    assert min(figures) < INTERACTIVE
