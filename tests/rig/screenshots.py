"""``make screenshots``: the pictures that the README shows, taken of a real office."""

import time
from pathlib import Path

from tests.rig.browser import PHONE, chromium, signed_in
from tests.rig.documents import pdf
from tests.rig.office import REPOSITORY, Office
from tests.rig.printers import IppPrinter, RawPrinter
from tests.rig.processes import wait_until

IMAGES = REPOSITORY / "docs" / "images"


def main() -> None:
    """Take them."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    broken = RawPrinter(mode="resets", limit=100_000)
    with Office() as office, IppPrinter("Lobby") as lobby, broken, chromium() as browser:
        office.add_printer("Lobby", lobby.uri)
        office.add_printer("Basement", broken.uri)
        fill(office)
        for dark in (False, True):
            with signed_in(browser, office, PHONE, dark=dark) as page:
                page.get_by_text("Uncertain").wait_for()
                path = IMAGES / f"page-{'dark' if dark else 'light'}.png"
                page.screenshot(path=path, animations="disabled")
                print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


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
