"""The page in a browser, over the real cloud and node, to paper."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from tests.office.test_login import Login
from tests.rig.browser import DESK, PHONE, chromium, signed_in
from tests.rig.documents import pdf
from tests.rig.office import ORGANISATION, Office
from tests.rig.printers import IppPrinter, RawPrinter

SLOW = 20_000
"""Milliseconds for what goes through cupsd, node, cloud and a printer."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def card(page: Page, title: str) -> Locator:
    """The card of the job with that title, once it is there."""
    found = page.locator(".card", has=page.get_by_role("heading", name=title))
    expect(found).to_be_visible(timeout=SLOW)
    return found


def choose_printer(page: Page, name: str) -> Locator:
    """The print sheet, with that printer chosen."""
    sheet = page.get_by_role("dialog")
    chosen = sheet.locator(".chosen")
    expect(chosen.or_(sheet.get_by_role("searchbox"))).to_be_visible(timeout=SLOW)
    if name not in "".join(chosen.all_inner_texts()):
        if chosen.count():
            chosen.get_by_role("button", name="Change").click()
        sheet.get_by_role("button", name=name).first.click()
    expect(chosen).to_contain_text(name)
    return sheet


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_a_job_appears_by_itself_and_print_brings_it_to_paper(
    office: Office, ipp_printer: IppPrinter, browser: Browser, viewport: dict[str, int]
) -> None:
    before = len(ipp_printer.documents())
    title = f"letter-{viewport['width']}.pdf"
    document = pdf(2)
    with signed_in(browser, office, viewport) as page:  # type: ignore[arg-type]
        office.cups.lp("pullprint", document, user=office.account, title=title)
        job = card(page, title)
        expect(job).to_contain_text("2 pages", timeout=SLOW)
        expect(job.locator("img")).to_be_visible(timeout=SLOW)
        assert job.locator("img").evaluate("image => image.naturalWidth") > 50, "its first page is not shown"
        job.get_by_role("checkbox").check()
        page.get_by_role("button", name="Print 1 job").click()
        sheet = choose_printer(page, "Lobby")
        sheet.get_by_label("two-sided", exact=True).check()
        sheet.get_by_role("button", name="More copies").click()
        sheet.get_by_role("button", name="Print", exact=True).click()
        expect(card(page, title)).to_contain_text("Printed", timeout=SLOW)
        card(page, title).get_by_role("button", name="Details").click()
        expect(page.get_by_role("dialog")).to_contain_text("sealed", timeout=SLOW)
    printed = ipp_printer.wait_documents(before + 1)[-1]
    assert printed.document == document
    assert printed.attributes["IPP_SIDES"].startswith("two-sided")
    assert printed.attributes["IPP_COPIES"] == "2"


def test_two_presses_from_the_code_on_the_printer_to_paper(
    office: Office, ipp_printer: IppPrinter, browser: Browser
) -> None:
    before = len(ipp_printer.documents())
    document = pdf(1)
    office.cups.lp("pullprint", document, user=office.account, title="scanned.pdf")
    office.person().wait_job("scanned.pdf", "held")
    with signed_in(browser, office) as page:
        printer = office.person().printer("Lobby")
        sign = page.request.get(f"{office.cloud.url}/api/v1/printers/{printer}/sign.png")
        (code,) = zxingcpp.read_barcodes(Image.open(io.BytesIO(sign.body())))
        assert code.text == f"{office.cloud.url}/p/{printer}"
        page.goto(code.text)  # the first press: on the link that the camera shows
        expect(card(page, "scanned.pdf").get_by_role("checkbox")).to_be_checked()
        page.get_by_role("region", name="Chosen jobs").get_by_role("button", name="Print").click()
        expect(card(page, "scanned.pdf")).to_contain_text("Printed", timeout=SLOW)
    assert ipp_printer.wait_documents(before + 1)[-1].document == document


def test_the_code_leads_to_the_printer_also_through_signing_in(
    office: Office, ipp_printer: IppPrinter, browser: Browser
) -> None:
    context = browser.new_context(viewport=PHONE, ignore_https_errors=True)
    page = context.new_page()
    page.goto(f"{office.cloud.url}/p/{office.person().printer('Lobby')}")
    page.get_by_label("Name", exact=True).fill(office.user)
    page.get_by_label("Password").fill(office.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Lobby")).to_be_visible()
    context.close()


def test_an_invited_user_chooses_a_password_and_is_at_home_and_the_link_is_used_up(
    office: Office, browser: Browser
) -> None:
    link = json.loads(office.cloud.admin("user", "add", ORGANISATION, "eve@example.com", "--invite", "--json"))["link"]
    for worked in (True, False):
        context = browser.new_context(viewport=PHONE, ignore_https_errors=True)
        page = context.new_page()
        page.goto(link)
        if worked:
            expect(page.get_by_role("heading", name="Welcome, eve@example.com")).to_be_visible()
            page.get_by_label("New password").fill("chosen by eve herself")
            page.get_by_role("button", name="Save and sign in").click()
            expect(page.get_by_role("heading", name="Nothing is waiting")).to_be_visible()
            (cookie,) = context.cookies()
            assert cookie["name"] == "__Host-pullprint" and cookie["httpOnly"] and cookie["secure"]
        else:
            expect(page.get_by_role("heading", name="This link does not work any more")).to_be_visible()
            page.get_by_role("link", name="Sign in").click()
            page.get_by_label("Name", exact=True).fill("eve@example.com")
            page.get_by_label("Password").fill("chosen by eve herself")
            page.get_by_role("button", name="Sign in").click()
            expect(page.get_by_role("heading", name="Nothing is waiting")).to_be_visible()
        assert link.partition("#")[2] not in page.url
        context.close()


def test_delete_can_be_undone_and_otherwise_takes_the_job_away(office: Office, browser: Browser) -> None:
    with signed_in(browser, office) as page:
        office.cups.lp("pullprint", pdf(), user=office.account, title="gone.pdf")
        card(page, "gone.pdf").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="gone.pdf")).to_have_count(0)
        page.get_by_role("button", name="Undo").click()
        card(page, "gone.pdf").get_by_role("button", name="Delete").click()
        page.goto("about:blank")  # before the time for Undo is over: it is deleted all the same
        office.person().wait_job("gone.pdf", "cancelled")


def test_two_browsers_that_release_one_job_at_once_print_it_once_and_both_see_it(
    office: Office, raw_printer: RawPrinter, browser: Browser
) -> None:
    before = len(raw_printer.received)
    office.cups.lp("pullprint", pdf(), user=office.account, title="wanted-twice.pdf")
    office.person().wait_job("wanted-twice.pdf", "held")
    with signed_in(browser, office) as phone, signed_in(browser, office, DESK) as desk:
        for page in (phone, desk):
            card(page, "wanted-twice.pdf").get_by_role("checkbox").check()
            page.get_by_role("button", name="Print 1 job").click()
            choose_printer(page, "Labels")
        press = "document.querySelector('dialog .primary').click()"
        phone.evaluate(f"setTimeout(() => {press}, 300)")
        desk.evaluate(f"setTimeout(() => {press}, 300)")
        for page in (phone, desk):
            expect(page.locator(".card", has_text="wanted-twice.pdf")).to_contain_text("Printed", timeout=SLOW)
    raw_printer.wait_received(before + 1)
    assert len(raw_printer.received) == before + 1


def test_what_is_uploaded_on_the_page_comes_out_at_the_printer(
    office: Office, raw_printer: RawPrinter, browser: Browser, tmp_path: Path
) -> None:
    before = len(raw_printer.received)
    document, picture = tmp_path / "uploaded.pdf", tmp_path / "photo.png"
    document.write_bytes(pdf(3))
    Image.new("RGB", (300, 200), "red").save(picture)
    with signed_in(browser, office) as page:
        page.locator("input[type=file]").first.set_input_files([document, picture])
        expect(card(page, "uploaded.pdf")).to_contain_text("3 pages", timeout=SLOW)
        expect(card(page, "photo.png")).to_contain_text("1 page", timeout=SLOW)
        card(page, "uploaded.pdf").get_by_role("checkbox").check()
        page.get_by_role("button", name="Print 1 job").click()
        choose_printer(page, "Labels").get_by_role("button", name="Print", exact=True).click()
        expect(card(page, "uploaded.pdf")).to_contain_text("Printed", timeout=SLOW)
    assert raw_printer.wait_received(before + 1)[-1] == document.read_bytes()


def test_an_upload_that_is_no_document_is_refused_with_a_sentence(
    office: Office, browser: Browser, tmp_path: Path
) -> None:
    strange = tmp_path / "archive.zip"
    strange.write_bytes(b"PK\x05\x06" + bytes(18))
    with signed_in(browser, office) as page:
        page.locator("input[type=file]").first.set_input_files(strange)
        expect(page.get_by_text("Nothing was stored.", exact=False).first).to_be_visible(timeout=SLOW)
    assert office.person().job("archive.zip") is None


def test_a_terminal_is_let_in_on_the_page(office: Office, browser: Browser) -> None:
    with signed_in(browser, office) as page, Login(office, "") as login:
        page.goto(f"{office.cloud.url}/login?code={login.code()}")
        page.get_by_role("button", name="Allow").click()
        expect(page.get_by_text("is signed in").first).to_be_visible(timeout=SLOW)
        status, _, _ = login.end()
        assert status == 0
        page.goto(f"{office.cloud.url}/account")
        expect(page.get_by_text("node1")).to_be_visible()


def test_a_printer_that_is_off_is_told_with_a_sentence_and_the_job_stays(
    office: Office, ipp_printer: IppPrinter, browser: Browser
) -> None:
    office.cups.lp("pullprint", pdf(), user=office.account, title="patient.pdf")
    with signed_in(browser, office) as page:
        job = card(page, "patient.pdf")
        ipp_printer.stop()
        try:
            job.get_by_role("checkbox").check()
            page.get_by_role("button", name="Print 1 job").click()
            choose_printer(page, "Lobby").get_by_role("button", name="Print", exact=True).click()
            expect(job).to_contain_text("does not answer", timeout=60_000)
            expect(job.get_by_role("checkbox")).to_be_enabled()
        finally:
            ipp_printer.start()


def test_german_to_the_last_sentence(office: Office, browser: Browser) -> None:
    office.cups.lp("pullprint", pdf(), user=office.account, title="deutsch.pdf")
    context = browser.new_context(viewport=PHONE, ignore_https_errors=True, locale="de-DE")
    page = context.new_page()
    page.goto(office.cloud.url)
    page.get_by_label("Name", exact=True).fill(office.user)
    page.get_by_label("Passwort").or_(page.get_by_label("Kennwort")).fill(office.password)
    page.get_by_role("button", name="Anmelden").click()
    card(page, "deutsch.pdf").get_by_role("button", name="Details").click()
    expect(page.get_by_role("dialog")).to_contain_text("erhalten und versiegelt", timeout=SLOW)
    assert "Held for" not in page.get_by_role("dialog").inner_text()
    context.close()
