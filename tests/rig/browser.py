"""Debian's Chromium on the page of an office, as a phone or at a desk."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from tests.rig.office import Office

CHROMIUM = "/usr/bin/chromium"
# Without a sandbox because the tests may be root; the rest keeps it from looking for hosts outside.
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
PHONE: ViewportSize = {"width": 390, "height": 844}
DESK: ViewportSize = {"width": 1_100, "height": 800}


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def signed_in(
    browser: Browser, office: Office, viewport: ViewportSize = PHONE, *, dark: bool = False
) -> Iterator[Page]:
    """The office's page, its user signed in."""
    # The office's CA is its own; a person accepts it once.
    context = browser.new_context(
        viewport=viewport,
        ignore_https_errors=True,
        device_scale_factor=2 if viewport == PHONE else 1,
        color_scheme="dark" if dark else "light",
    )
    try:
        page = context.new_page()
        page.goto(office.cloud.url)
        page.get_by_label("Name", exact=True).fill(office.user)
        page.get_by_label("Password").fill(office.password)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Your jobs").wait_for()
        yield page
    finally:
        context.close()
