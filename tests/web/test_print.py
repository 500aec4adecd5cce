"""Where and how to print: the sheet, and a printer's own page behind its QR code."""

import re

import pytest
from playwright.async_api import Page, expect
from tests.web.conftest import assert_accessible, in_every_look, sign_in
from tests.web.looks import card, choose_printer, pick, print_sheet, sheet
from tests.web.standin import ATTIC, EVERYTHING, GREY, LOBBY, PASSWORD, PRINTED, Standin, job

from pullprint.base.errors import NotAllowed
from pullprint.model.facts import Facts
from pullprint.model.states import State
from pullprint.model.ticket import Ticket
from pullprint.wire.views import ReleaseRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def press_print(page: Page) -> None:
    await sheet(page).get_by_role("button", name="Print", exact=True).click()


async def test_what_was_changed_is_sent_in_ipps_words(desk: Page, cloud: Standin) -> None:
    cloud.add(job(facts=Facts(pages=12)))
    form = await print_sheet(desk)
    await choose_printer(desk, "Lobby")
    await expect(form.get_by_label("Copies", exact=True)).to_have_value("2")
    await expect(form.get_by_role("radio", name="two-sided", exact=True)).to_be_checked()
    for wrong in ("0", "100", "x"):
        await form.get_by_label("Copies", exact=True).fill(wrong)
        await press_print(desk)
        await expect(form.get_by_role("alert")).to_have_text("Choose between 1 and 99 copies.")
    await form.get_by_label("Copies", exact=True).fill("4")
    await form.get_by_role("button", name="More copies").click()
    for wrong, sentence in (
        ("3-", None),
        ("0", "like this"),
        ("5-2", "like this"),
        ("x", "like this"),
        ("13", "12 pages"),
    ):
        await form.get_by_label("Pages").fill(wrong)
        if sentence:
            await press_print(desk)
            await expect(form.get_by_role("alert")).to_contain_text(sentence)
    await form.get_by_label("Pages").fill(" 5, 1 – 3; 7-, 8 ")
    await form.get_by_role("radio", name="black and white").check()
    await form.get_by_role("radio", name="one-sided").check()
    await expect(form.get_by_label("Paper").locator("option")).to_have_text(
        ["as sent", "A4", "A3", "Letter", "card, 100 × 200 mm"]
    )
    await form.get_by_label("Paper").select_option("A3")
    await assert_accessible(desk)
    await press_print(desk)
    await expect(card(desk).locator(".word")).to_have_text("Printed")
    changes = {"copies": "5", "sides": "one-sided", "print-color-mode": "monochrome", "page-ranges": "1-3,5,7-12",
               "media": "iso_a3_297x420mm"}  # fmt: skip
    assert cloud.releases == [(job().id, ReleaseRequest(printer=LOBBY.id, changes=changes))]


async def test_nothing_that_was_not_changed_is_sent_and_the_last_printer_is_chosen(desk: Page, cloud: Standin) -> None:
    cloud.add(job(1, "first.pdf"), job(2, "second.pdf"))
    await print_sheet(desk, "first.pdf")
    await choose_printer(desk, "Lobby")
    await press_print(desk)
    form = await print_sheet(desk, "second.pdf")
    await expect(form.locator(".chosen")).to_contain_text("Lobby")
    await press_print(desk)
    await expect(desk.locator(".past .card")).to_have_count(2)
    assert [(wanted.printer, wanted.changes, wanted.again) for _, wanted in cloud.releases] == [("p1", {}, False)] * 2


async def test_only_what_the_printer_can_do_is_offered_and_what_is_lost_is_said(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    form = await print_sheet(desk)
    await choose_printer(desk, "Basement")
    await expect(form.locator(".standing")).to_have_text("The printer is out of paper.")
    await expect(form.get_by_text("This printer has no colour")).to_be_visible()
    await expect(form.get_by_text("does not print both sides")).to_be_visible()
    for name in ("Copies", "Pages", "Paper"):
        await expect(form.get_by_label(name, exact=True)).to_have_count(0)
    await expect(form.get_by_role("radio")).to_have_count(0)
    await choose_printer(desk, "Attic")  # which says nothing of itself
    await expect(form.get_by_text("Everything is printed as it was sent.")).to_be_visible()
    await expect(form.locator(".standing")).to_contain_text("Nobody has asked it yet")
    await press_print(desk)
    await expect(card(desk).locator(".word")).to_have_text("Printed")
    assert cloud.releases == [(job().id, ReleaseRequest(printer=ATTIC.id))]


async def test_printers_are_found_by_name_place_and_code_and_favourites_come_first(desk: Page, cloud: Standin) -> None:
    cloud.printers += [
        LOBBY.model_copy(update={"id": f"x{n}", "name": f"Room {n}", "code": f"R{n}"}) for n in range(40)
    ]
    cloud.add(job())
    form = await print_sheet(desk)
    names = form.locator(".printer .names > bdi")
    await expect(names).to_have_count(43)
    await form.get_by_role("button", name="Favourite: Attic").click()
    await expect(names.first).to_have_text("Attic")
    await expect(form.get_by_role("button", name="Favourite: Attic")).to_be_focused()
    for words, found in (("bicyc base", ["Basement"]), ("m9xd", ["Attic"]), ("room 39", ["Room 39"]), ("zzz", [])):
        await form.get_by_label("Search printers").fill(words)
        await expect(names).to_have_text(found)
    await expect(form.get_by_text("No printer fits this search.")).to_be_visible()
    await form.get_by_label("Search printers").fill("")
    await assert_accessible(desk)
    await desk.reload()
    form = await print_sheet(desk)
    await expect(form.locator("section").first).to_contain_text(re.compile("Favourites.*Attic"))


async def test_printers_with_hostile_names_and_none_at_all(desk: Page, cloud: Standin) -> None:
    cloud.printers = [
        LOBBY.model_copy(update={"id": f"h{n}", "name": '"><b>\u202eybboL', "place": "x" * 900, "trouble": "y" * 5_000})
        for n in range(2)
    ]
    cloud.add(job())
    form = await print_sheet(desk)
    await expect(form.locator(".printer .names > bdi").first).to_have_text('"><b>\ufffdybboL')
    await assert_accessible(desk)
    await form.locator(".printer").first.click()
    await assert_accessible(desk)
    await desk.keyboard.press("Escape")
    await expect(sheet(desk)).to_have_count(0)
    cloud.printers = []
    await desk.locator(".bar .primary").click()
    await expect(sheet(desk)).to_contain_text("There is no printer to choose yet. Your job stays held.")
    await expect(sheet(desk).get_by_role("button", name="Print", exact=True)).to_be_disabled()


async def test_a_no_is_told_where_the_button_is_and_the_choice_stays(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    cloud.refusal = NotAllowed(reason="your quota is used up")
    form = await print_sheet(desk)
    await choose_printer(desk, "Lobby")
    await form.get_by_label("Copies", exact=True).fill("7")
    await press_print(desk)
    await expect(form.get_by_role("alert")).to_contain_text("your quota is used up")
    cloud.refusal = None
    await desk.context.set_offline(True)
    await press_print(desk)
    await expect(form.get_by_role("alert")).to_contain_text("Pullprint cannot be reached.")
    await desk.context.set_offline(False)
    await expect(form.get_by_label("Copies", exact=True)).to_have_value("7")
    await press_print(desk)
    await expect(card(desk).locator(".word")).to_have_text("Printed")
    assert [wanted.changes for _, wanted in cloud.releases] == [{"copies": "7"}]


async def test_an_uncertain_job_is_printed_again_only_after_a_warning(desk: Page, cloud: Standin) -> None:
    cloud.add(job(state=State.UNCERTAIN))
    form = await print_sheet(desk)
    await choose_printer(desk, "Lobby")
    await expect(form).to_contain_text("“report.pdf” may have come out already, and would be printed a second time")
    await form.get_by_role("button", name="Print again").click()
    await expect(card(desk).locator(".word")).to_have_text("Printed")
    assert cloud.releases[0][1].again


async def test_what_became_uncertain_behind_an_open_sheet_is_not_asked_for_again(desk: Page, cloud: Standin) -> None:
    cloud.add(view := job())
    form = await print_sheet(desk)
    await choose_printer(desk, "Lobby")
    cloud.move(view.id, State.UNCERTAIN, "It may have come out.", doubtful=(1,))
    await expect(card(desk).locator(".word")).to_have_text("Uncertain")
    await form.locator(".primary").click()
    await expect(desk.locator(".toast").first).to_be_visible()
    assert not cloud.releases[0][1].again, "nobody was asked about that attempt"


async def test_a_session_that_ends_at_the_press_of_print_loses_nothing(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    form = await print_sheet(desk)
    await choose_printer(desk, "Lobby")
    await form.get_by_label("Copies", exact=True).fill("13")
    cloud.sessions.clear()
    await press_print(desk)
    over = desk.locator("dialog.over")
    await expect(over.get_by_role("alert")).to_contain_text("Your session has ended.")
    await expect(over.get_by_label("Name", exact=True)).to_have_value("ada@example.com")
    await expect(over.get_by_label("Password")).to_be_focused()
    await desk.keyboard.press("Escape")
    await desk.keyboard.press("Escape")
    await expect(over).to_be_visible()
    await assert_accessible(desk)
    await over.get_by_label("Password").fill(PASSWORD)
    await desk.keyboard.press("Enter")
    await expect(over).to_have_count(0)
    await expect(form.get_by_label("Copies", exact=True)).to_have_value("13")
    await press_print(desk)
    await expect(card(desk).locator(".word")).to_have_text("Printed")
    assert [wanted.changes for _, wanted in cloud.releases] == [{"copies": "13"}]


async def test_the_sheet_keeps_the_focus_and_gives_it_back(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    await print_sheet(desk)
    await choose_printer(desk, "Lobby")
    for _ in range(20):
        await desk.keyboard.press("Tab")
        assert await desk.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    await desk.keyboard.press("Escape")
    await expect(sheet(desk)).to_have_count(0)
    await expect(desk.locator(".bar .primary")).to_be_focused()
    await desk.locator(".bar .primary").click()
    await sheet(desk).wait_for()
    await desk.go_back()
    await expect(sheet(desk)).to_have_count(0)
    await desk.locator(".bar .primary").click()
    await sheet(desk).locator(".printer").first.wait_for()
    await desk.mouse.click(200, 20)
    await expect(sheet(desk)).to_have_count(0)


@in_every_look
async def test_from_the_code_to_paper_in_two_presses(desk: Page, cloud: Standin) -> None:
    """The first press is on what the camera found."""
    cloud.add(job(1, "old.pdf"), job(2, "new.pdf"), job(3, "doubt.pdf", state=State.UNCERTAIN))
    await desk.goto(f"{cloud.url}p/p1")
    await expect(desk.get_by_role("heading", name="Lobby", level=1)).to_be_visible()
    await expect(card(desk, "new.pdf").get_by_role("checkbox")).to_be_checked()
    await expect(card(desk, "doubt.pdf").get_by_role("checkbox")).not_to_be_checked()
    await expect(desk).to_have_title("Lobby – Pullprint")
    await assert_accessible(desk)
    await desk.get_by_role("button", name="Print 2 jobs").click()
    await expect(desk.locator(".past .word")).to_have_text(["Printed", "Printed"])
    await assert_accessible(desk)
    assert cloud.releases == [(job(n).id, ReleaseRequest(printer="p1")) for n in (1, 2)]


async def test_a_printer_that_runs_out_of_paper_says_so_on_its_page(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    await desk.goto(f"{cloud.url}p/p1")
    await expect(desk.locator(".standing")).to_have_text("Ready")
    await card(desk).get_by_role("checkbox").uncheck()
    lobby = cloud.printers[0].model_copy(update={"trouble": "The printer is out of paper."})
    cloud.printers = [lobby, *cloud.printers[1:]]
    cloud.wake()
    await expect(desk.locator(".standing")).to_have_text("The printer is out of paper.")
    await expect(card(desk).get_by_role("checkbox")).not_to_be_checked()


async def test_of_many_jobs_the_newest_is_meant(desk: Page, cloud: Standin) -> None:
    cloud.add(*(job(n, f"{n}.pdf") for n in range(1, 6)))
    await desk.goto(f"{cloud.url}p/p1")
    await expect(desk.get_by_role("button", name="Print", exact=True)).to_be_visible()
    await expect(card(desk, "5.pdf").get_by_role("checkbox")).to_be_checked()
    await expect(desk.locator(".check:checked")).to_have_count(1)
    await desk.get_by_role("button", name="Options").click()
    await expect(sheet(desk).locator(".chosen")).to_contain_text("Lobby")


async def test_a_job_that_fails_here_says_why_and_the_others_print(desk: Page, cloud: Standin) -> None:
    cloud.add(job(1, "first.pdf"), job(2, "second.pdf"))
    cloud.once = True
    await desk.goto(f"{cloud.url}p/p1")
    await desk.get_by_role("button", name="Print 2 jobs").click()
    await expect(card(desk, "second.pdf").get_by_role("alert")).to_contain_text("it is being printed already")
    await expect(desk.locator(".toast")).to_contain_text("“first.pdf” on the way to Lobby.")
    await expect(desk.locator(".past .title")).to_have_text(["first.pdf"])
    cloud.once, cloud.way = False, [PRINTED[0], (State.HELD, "Lobby has no paper.")]
    await pick(desk, "second.pdf")
    await desk.get_by_role("button", name="Print", exact=True).click()
    await expect(card(desk, "second.pdf").locator(".story")).to_have_text("Lobby has no paper.")


async def test_a_code_survives_signing_in_and_an_unknown_one_says_so(page: Page, cloud: Standin) -> None:
    cloud.add(job())
    await page.goto(f"{cloud.url}p/p1")
    await sign_in(page)
    await expect(page.get_by_role("heading", name="Lobby", level=1)).to_be_visible()
    await expect(page.get_by_role("button", name="Print", exact=True)).to_be_visible()
    await page.goto(f"{cloud.url}p/gone")
    await expect(page.get_by_role("heading", name="This printer is not known here")).to_be_visible()
    await page.get_by_text("Print somewhere else").click()
    await expect(page.get_by_role("heading", name="Your jobs")).to_be_focused()
    await page.go_back()
    await expect(page.get_by_role("heading", name="This printer is not known here")).to_be_visible()


async def test_a_printers_sign_is_offered(desk: Page, cloud: Standin) -> None:
    await desk.goto(f"{cloud.url}p/p1")
    await desk.get_by_text("About this printer").click()
    links = desk.get_by_role("link", name=re.compile("^(PDF|PNG|SVG)$"))
    assert [await link.get_attribute("href") for link in await links.all()] == [
        f"/api/v1/printers/p1/sign.{kind}" for kind in ("pdf", "png", "svg")
    ]
    await expect(desk.locator(".about")).to_contain_text("7KQ2")
    await assert_accessible(desk)


# Chromium has this on phones, not on Debian; the camera is Chromium's own test picture.
DETECTOR = """globalThis.BarcodeDetector = class {
  async detect() { return (globalThis.seen ?? []).map((rawValue) => ({ rawValue })); }
}"""


async def test_a_code_is_scanned_in_the_page_and_the_camera_goes_off(desk: Page, cloud: Standin) -> None:
    cloud.add(job(ticket=Ticket()))
    await desk.context.grant_permissions(["camera"])
    await desk.add_init_script(DETECTOR)
    await desk.reload()
    await desk.get_by_role("button", name="Scan", exact=True).click()
    await expect(sheet(desk)).to_contain_text("Hold the code on the printer into the frame.")
    await desk.evaluate("seen = ['https://evil.example/p/p1']")
    await expect(sheet(desk).get_by_role("alert")).to_contain_text("not the code of a printer")
    await assert_accessible(desk)
    await desk.evaluate("globalThis.track = document.querySelector('video').srcObject.getTracks()[0]")
    await desk.evaluate(f"seen = ['{cloud.url}p/p1']")
    await expect(desk.get_by_role("heading", name="Lobby", level=1)).to_be_visible()
    await expect(sheet(desk)).to_have_count(0)
    assert await desk.evaluate("track.readyState") == "ended"
    await expect(desk).to_have_url(f"{cloud.url}p/p1")


async def test_without_a_scanner_the_phones_camera_is_named(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    assert EVERYTHING.copies > 1 and GREY.trouble
    form = await print_sheet(desk)
    await expect(form).to_contain_text("point your phone’s camera at the code")
    await expect(form.get_by_role("button", name="Scan code")).to_have_count(0)
