"""The page in a browser, over the real cloud and node, to paper."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from tests.rig.browser import DESK, PHONE, chromium, signed_in
from tests.rig.documents import pdf
from tests.rig.office import Office
from tests.rig.printers import IppPrinter


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_a_job_appears_by_itself_and_print_brings_it_to_paper(
    office: Office, ipp_printer: IppPrinter, browser: Browser, viewport: dict[str, int]
) -> None:
    before = len(ipp_printer.documents())
    title = f"letter-{viewport['width']}.pdf"
    document = pdf(2)
    with signed_in(browser, office, viewport) as page:  # type: ignore[arg-type]
        office.cups.lp("pullprint", document, user=office.account, title=title)
        card = page.locator(".job", has=page.get_by_role("heading", name=title))
        expect(card).to_be_visible(timeout=10_000)
        card.get_by_role("button", name="Print…").click()
        card.get_by_label("Printer").select_option(label="Lobby")
        card.get_by_label("Sides").select_option("two-sided-long-edge")
        card.get_by_role("button", name="Print now").click()
        expect(card).to_contain_text("Printed", timeout=15_000)
        card.get_by_role("button", name="History").click()
        expect(card).to_contain_text("sealed", timeout=10_000)
    printed = ipp_printer.wait_documents(before + 1)[-1]
    assert printed.document == document
    assert printed.attributes["IPP_SIDES"] == "two-sided-long-edge"


def test_delete_takes_the_job_away(office: Office, browser: Browser) -> None:
    with signed_in(browser, office) as page:
        office.cups.lp("pullprint", pdf(), user=office.account, title="gone.pdf")
        card = page.locator(".job", has=page.get_by_role("heading", name="gone.pdf"))
        card.get_by_role("button", name="Delete").click(timeout=10_000)
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(card).to_contain_text("Deleted", timeout=15_000)
    office.person().wait_job("gone.pdf", "cancelled")
