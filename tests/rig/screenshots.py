"""``make screenshots``: the pictures that the README shows, taken of a real office."""

import io
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize
from tests.rig.browser import DESK, PHONE, chromium, signed_in
from tests.rig.documents import pdf
from tests.rig.office import REPOSITORY, Office
from tests.rig.printers import IppPrinter, RawPrinter
from tests.rig.processes import wait_until

IMAGES = REPOSITORY / "docs" / "images"
COLOURS = 64
"""Of a picture: enough for a page with one accent, and a third of the bytes."""
SCREENS: dict[str, ViewportSize] = {"phone": PHONE, "desk": DESK}


def main() -> None:
    """Take each view on each screen in both themes."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    broken = RawPrinter(mode="resets", limit=100_000)
    with Office() as office, IppPrinter("Lobby") as lobby, broken, chromium() as browser:
        office.add_printer("Lobby", lobby.uri)
        office.add_printer("Basement", broken.uri)
        fill(office)
        here = office.person().printer("Lobby")
        for screen in SCREENS:
            for dark in (False, True):
                take(browser, office, screen, here, dark=dark)


def take(browser: Browser, office: Office, screen: str, here: str, *, dark: bool) -> None:
    """All views of one screen in one theme."""
    with signed_in(browser, office, SCREENS[screen], dark=dark) as page:
        for name, go in VIEWS.items():
            go(page, office, here)
            page.wait_for_timeout(400)  # what moves has come to rest
            path = IMAGES / f"{name}-{screen}-{'dark' if dark else 'light'}.png"
            save(page, path)
            print(path.relative_to(REPOSITORY))


def save(page: Page, path: Path) -> None:
    """A small PNG of what is on the screen."""
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    picture.convert("RGB").quantize(COLOURS, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)


def home(page: Page, office: Office, _: str) -> None:
    """The list, two jobs chosen."""
    page.goto(office.cloud.url)
    page.get_by_text("Uncertain").wait_for()
    for title in ("Quarterly report.pdf", "Minutes, 20 November.pdf"):
        page.locator(".card", has_text=title).locator(".thumb").click()
    page.mouse.move(0, 0)
    page.evaluate("scrollTo(0, 0)")


def print_sheet(page: Page, office: Office, here: str) -> None:
    """Where and how."""
    home(page, office, here)
    page.locator(".bar .primary").click()
    page.get_by_role("dialog").get_by_role("button", name="Lobby").first.click()
    page.locator(".chosen").wait_for()


def details(page: Page, office: Office, _: str) -> None:
    """A job's way."""
    page.goto(office.cloud.url)
    page.locator(".card", has_text="Floor plan").get_by_role("button", name="Details").click()
    page.locator(".way-line li").first.wait_for()


def printer(page: Page, office: Office, here: str) -> None:
    """Behind the QR code."""
    page.goto(f"{office.cloud.url}/p/{here}")
    page.locator(".bar").wait_for()


def history(page: Page, office: Office, _: str) -> None:
    """What was printed."""
    page.goto(f"{office.cloud.url}/history")
    page.locator(".entry-row").first.wait_for()


def account(page: Page, office: Office, _: str) -> None:
    """Where one is signed in."""
    page.goto(f"{office.cloud.url}/account")
    page.locator(".session").first.wait_for()


def sign_in(page: Page, office: Office, _: str) -> None:
    """The door; the last one, because the session is gone."""
    page.context.clear_cookies()
    page.goto(office.cloud.url)
    page.locator("form").wait_for()


VIEWS: dict[str, Callable[[Page, Office, str], None]] = {
    "jobs": home,
    "print": print_sheet,
    "details": details,
    "printer": printer,
    "history": history,
    "account": account,
    "sign-in": sign_in,
}


def fill(office: Office) -> None:
    """Jobs as an office has them: one printed, one in doubt, two waiting."""
    me = office.person()

    def submit(title: str, document: bytes, *options: str) -> str:
        office.cups.lp("pullprint", document, *options, user=office.account, title=title)
        return str(me.wait_job(title, "held")["id"])

    me.release(submit("Travel expenses.pdf", pdf(2)), "Lobby")
    me.wait_job("Travel expenses.pdf", "done")
    me.release(submit("Floor plan.prn", b"x" * 3_000_000, "raw"), "Basement")
    me.wait_job("Floor plan.prn", "uncertain")
    submit("Minutes, 20 November.pdf", pdf(4), "sides=two-sided-long-edge")
    submit("Quarterly report.pdf", pdf(12, color=True))
    wait_until("facts", lambda: (me.job("Quarterly report.pdf") or {}).get("facts"))
    time.sleep(0.5)


if __name__ == "__main__":
    main()
