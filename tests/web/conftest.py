"""One real browser for a module, a fresh cloud and a fresh profile for each test; nothing may go wrong in silence."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright
from tests.web.standin import PASSWORD, Standin, serve

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic",
]  # fmt: skip
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1200, "height": 900}


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
    await runner.cleanup()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, cloud: Standin, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """The sign-in form. A test's ``look`` parameter sets viewport and theme."""
    look = {"viewport": PHONE, "color_scheme": "light"} | getattr(request, "param", {})
    context = await browser.new_context(reduced_motion="reduce", **look)
    page = await context.new_page()
    page.set_default_timeout(5_000)
    troubles: list[str] = []
    # A status that the API documents is no trouble; Chromium writes each of them to the console all the same.
    page.on("console", lambda m: m.type in {"error", "warning"} and not m.text.startswith("Failed to load resource")
            and troubles.append(m.text))  # fmt: skip
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: r.url.startswith(cloud.url) or troubles.append(f"third party: {r.url}"))
    await page.goto(cloud.url)
    await page.locator("#entry").wait_for()
    yield page
    await context.close()
    assert troubles == []


@pytest_asyncio.fixture(loop_scope="module")
async def desk(page: Page) -> Page:
    """The list of jobs, signed in as Ada."""
    await page.get_by_label("Name", exact=True).fill("ada@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.locator("#desk").wait_for()
    return page
