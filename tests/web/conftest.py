"""One real browser for a module, a fresh cloud and a fresh profile for each test; nothing may go wrong in silence."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, async_playwright
from tests.web.standin import PASSWORD, Standin, serve

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1200, "height": 900}
LOOKS = [{"viewport": size, "color_scheme": theme} for size in (PHONE, DESK) for theme in ("light", "dark")]
in_every_look = pytest.mark.parametrize(
    "page", LOOKS, indirect=True, ids=lambda look: f"{look['viewport']['width']}-{look['color_scheme']}"
)
# What the API documents is no trouble, nor is what playwright says of its own switches; Chromium tells all of it.
_EXPECTED = ("Failed to load resource", "Service Worker registration blocked")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def cloud() -> AsyncIterator[Standin]:
    standin = Standin()
    runner = await serve(standin)
    yield standin
    standin.broken = True
    standin.wake()
    await runner.cleanup()


def watch(page: Page, cloud: Standin, troubles: list[str]) -> None:
    """Collect in *troubles* what goes wrong on *page*."""
    page.set_default_timeout(5_000)
    page.on(
        "console",
        lambda m: m.type in {"error", "warning"} and not m.text.startswith(_EXPECTED) and troubles.append(m.text),
    )
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: r.url.startswith((cloud.url, "blob:")) or troubles.append(f"third party: {r.url}"))


async def new_context(browser: Browser, **look: Any) -> BrowserContext:
    """A fresh profile; without a service worker if *look* does not ask for one."""
    settings = {"viewport": PHONE, "color_scheme": "light", "service_workers": "block"} | look
    return await browser.new_context(reduced_motion="reduce", **settings)


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, cloud: Standin, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """The sign-in form. A test's ``look`` parameter sets viewport, theme and language."""
    context = await new_context(browser, **getattr(request, "param", {}))
    page, troubles = await context.new_page(), list[str]()
    watch(page, cloud, troubles)
    await page.goto(cloud.url)
    await page.locator("form").wait_for()
    yield page
    await context.close()
    assert troubles == []


async def sign_in(page: Page) -> None:
    """Sign in as Ada."""
    await page.locator("[name=name]").fill("ada@example.com")
    await page.locator("[name=password]").fill(PASSWORD)
    await page.locator("form .primary").click()
    await page.locator("nav a").first.wait_for()


@pytest_asyncio.fixture(loop_scope="module")
async def desk(page: Page) -> Page:
    """The list of jobs, signed in as Ada."""
    await sign_in(page)
    await page.locator(".lead-row").wait_for()
    return page


async def assert_accessible(page: Page) -> None:
    """axe finds nothing, and nothing is wider than the screen."""
    results = await Axe().run(page)
    found = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in results.response["violations"]]
    assert found == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
