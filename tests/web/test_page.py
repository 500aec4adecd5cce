"""The page in a real browser, over a cloud that a test moves: what people see, and what must not happen to them."""

import re
import time

import pytest
from playwright.async_api import Locator, Page, expect
from tests.web.conftest import DESK, PHONE
from tests.web.standin import ATTIC, FOLDER, LOBBY, PASSWORD, PRINTED, Standin, job

from pullprint.base.errors import NotAllowed
from pullprint.model.states import State
from pullprint.wire.views import ReleaseRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")
LOOKS = [{"viewport": size, "color_scheme": theme} for size in (PHONE, DESK) for theme in ("light", "dark")]
HOSTILE = {
    "markup": '<img src=x onerror="document.title=1"><script>document.title=2</script>{{7*7}}',
    "override": "invoice\u202efdp.exe\u2066\u200f",
    "long": "w" * 4_096,
    "controls": "a\x00b\x1b[31mc\u2028d\ne",
    "nothing": "",
    "wide": "報告書" * 600,
}


def card(page: Page, title: str = "report.pdf") -> Locator:
    return page.locator(".job", has=page.get_by_role("heading", name=title))


async def open_release(page: Page, title: str = "report.pdf") -> Locator:
    form = card(page, title)
    await form.get_by_role("button", name=re.compile("^Print (again)?…|Print…")).click()
    await expect(form.get_by_label("Printer")).to_be_focused()
    return form


async def test_sign_in_tells_what_is_wrong_and_keeps_what_was_typed(page: Page, cloud: Standin) -> None:
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("Type your name and your password.")
    await page.get_by_label("Name", exact=True).fill("ada@example.com")
    await page.get_by_label("Password").fill("guess")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("name or password is wrong")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("ada@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Your jobs")).to_be_focused()
    await expect(page.locator("#user")).to_have_text("ada@example.com")
    assert await page.get_by_label("Password").input_value() == ""
    assert await page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie") == "{}"


async def test_an_empty_list_tells_how_to_print_until_a_job_comes_by_itself(desk: Page, cloud: Standin) -> None:
    await expect(desk.locator("#empty")).to_contain_text("lp -d pullprint report.pdf")
    cloud.add(job(created=int(time.time()) - 130))
    await expect(card(desk)).to_contain_text("3 pages · 2 copies · two-sided · from desk · 2 minutes ago")
    await expect(card(desk)).to_have_attribute("data-tone", "held")
    await expect(desk.locator("#empty")).to_be_hidden()
    await expect(desk.locator("#news")).to_contain_text("New: report.pdf: Ready.")


@pytest.mark.parametrize(
    "page", LOOKS, indirect=True, ids=lambda look: f"{look['viewport']['width']}-{look['color_scheme']}"
)
async def test_every_state_is_readable_and_fits_with_hostile_titles(desk: Page, cloud: Standin) -> None:
    for n, state in enumerate([*State, State.HELD]):
        cloud.add(job(n, list(HOSTILE.values())[n % len(HOSTILE)], state=state, host="<b>h</b>" + "h" * 999,
                      sentence=HOSTILE["markup"] + "s" * 900))  # fmt: skip
    await expect(desk.locator(".job")).to_have_count(10)
    for button in await desk.get_by_role("button", name="History").all():
        await button.click()
    assert await desk.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await desk.title() == "Pullprint"
    assert await desk.locator(".job :is(img, script, b)").count() == 0
    shown = await desk.locator("main").inner_text()
    assert "<img src=x" in shown and "\ufffd" in shown and "Untitled" in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200f\x00\x1b\u2028]", await desk.content())
    assert max([len(title) for title in await desk.locator(".title").all_inner_texts()]) <= 255
    # WCAG 2.2, 1.4.3: 4.5 to 1 for every text that is shown.
    assert await desk.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  };
  const luminance = (rgb) => 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2];
  const poor = [];
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !element.checkVisibility() || element.matches("option")) continue;
    const below = [];
    for (let e = element; e; e = e.parentElement) below.unshift(getComputedStyle(e).backgroundColor);
    const [a, b] = [luminance(over(below)), luminance(over([...below, getComputedStyle(element).color]))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([element.className, element.textContent.slice(0, 30), ratio]);
  }
  return poor;
}"""


async def test_a_release_sends_what_was_changed_and_tells_each_state(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    form = await open_release(desk)
    await expect(form.get_by_label("Sides")).to_have_value("")
    await expect(form.locator("[name=sides] option").first).to_have_text("As sent: two-sided")
    await form.get_by_label("Printer").select_option("Attic")
    await form.get_by_label("Copies").fill("0")
    await form.get_by_role("button", name="Print now").click()
    await expect(form.get_by_role("alert")).to_have_text("Choose between 1 and 9999 copies.")
    assert cloud.releases == []
    await form.get_by_label("Copies").fill("5")
    await form.get_by_label("Colour").select_option("Black and white")
    cloud.way = PRINTED[:2]
    await desk.keyboard.press("Tab")
    await form.get_by_role("button", name="Print now").press("Enter")
    await expect(card(desk)).to_have_attribute("data-tone", "busy")
    await expect(card(desk).get_by_role("button", name="Delete")).to_be_hidden()
    await expect(card(desk).locator(".word")).to_have_text("Printing")
    cloud.move(job().id, *PRINTED[2])
    await expect(desk.locator("#ended .word")).to_have_text("Printed")
    await expect(desk.locator("#news")).to_contain_text("report.pdf: Printed. Printed at Lobby.")
    await expect(card(desk).locator(".title")).to_be_focused()
    wanted = ReleaseRequest(printer=ATTIC.id, changes={"copies": "5", "print-color-mode": "monochrome"})
    assert cloud.releases == [(job().id, wanted)]


async def test_nothing_that_was_not_changed_is_sent_and_the_last_printer_is_offered(desk: Page, cloud: Standin) -> None:
    cloud.add(job(1, "first.pdf"), job(2, "second.pdf"))
    for title in ("first.pdf", "second.pdf"):
        form = await open_release(desk, title)
        if title == "first.pdf":
            await form.get_by_label("Printer").select_option("Attic")
        await form.get_by_role("button", name="Print now").click()
        await expect(card(desk, title).locator(".word")).to_have_text("Printed")
    assert [(wanted.printer, wanted.changes) for _, wanted in cloud.releases] == [("p2", {}), ("p2", {})]


async def test_a_printer_that_says_no_is_told_and_the_job_can_be_printed_elsewhere(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    for way in (
        [(State.PREPARED, "Released."), (State.HELD, "Lobby has no paper.")],
        [(State.HELD, "Not this format.")],
    ):
        cloud.way = way
        await (await open_release(desk)).get_by_role("button", name="Print now").click()
        await expect(card(desk).locator(".sentence")).to_have_text(way[-1][1])
        await expect(card(desk)).to_have_attribute("data-tone", "bad")
        await expect(card(desk).locator(".word")).to_have_text("Not printed")
    cloud.refusal = NotAllowed(reason="your quota is used up")
    form = await open_release(desk)
    await form.get_by_label("Copies").fill("7")
    await form.get_by_role("button", name="Print now").click()
    await expect(form.get_by_role("alert")).to_contain_text("your quota is used up")
    await expect(form.get_by_label("Copies")).to_have_value("7")
    await expect(form.get_by_role("button", name="Print now")).to_be_enabled()


async def test_an_uncertain_job_is_printed_again_only_with_a_warning(desk: Page, cloud: Standin) -> None:
    cloud.add(job(1, "lost.pdf", state=State.UNCERTAIN), job(2, "seen.pdf", state=State.UNCERTAIN))
    form = await open_release(desk, "lost.pdf")
    await expect(form).to_contain_text("this may print the document a second time")
    await form.get_by_role("button", name="Print now").click()
    await expect(card(desk, "lost.pdf").locator(".word")).to_have_text("Printed")
    assert cloud.releases[0][1].again
    await card(desk, "seen.pdf").get_by_role("button", name="It came out").click()
    await expect(card(desk, "seen.pdf")).to_contain_text("You said that it came out.")


async def test_deleting_asks_first_and_a_no_changes_nothing(desk: Page, cloud: Standin) -> None:
    cloud.add(job(title="<b>secret</b>"))
    delete = card(desk, "secret").get_by_role("button", name="Delete")
    await delete.click()
    await expect(desk.get_by_role("dialog")).to_contain_text("“<b>secret</b>” will be destroyed")
    await expect(desk.get_by_role("button", name="Keep it")).to_be_focused()
    await desk.keyboard.press("Escape")
    await expect(delete).to_be_focused()
    await delete.click()
    await desk.keyboard.press("Enter")
    assert not any(request.startswith("DELETE") for request in cloud.requests)
    await delete.click()
    await desk.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(desk.locator("#ended .word")).to_have_text("Deleted")


async def test_the_history_opens_in_place_and_goes_on_by_itself(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    history = card(desk).get_by_role("button", name="History")
    await history.click()
    await expect(history).to_have_attribute("aria-expanded", "true")
    steps = card(desk).get_by_role("list", name="History of this job").get_by_role("listitem")
    await expect(steps).to_have_count(1)
    cloud.move(job().id, State.SENDING, "Lobby is being sent the document.")
    await expect(steps).to_have_count(2)
    await expect(steps.last).to_contain_text(re.compile(r"Lobby is being sent the document\..*desk"))


async def test_a_job_is_claimed_by_its_code(desk: Page, cloud: Standin) -> None:
    await desk.get_by_text("Is a job missing?").click()
    code = desk.get_by_label("Claim code")
    await code.fill("0000-0000")
    await desk.get_by_role("button", name="Claim").click()
    await expect(desk.locator("#claim").get_by_role("alert")).to_contain_text("no such code")
    await expect(code).to_have_value("0000-0000")
    await code.fill("7kq2-m9xd")
    await code.press("Enter")
    await expect(card(desk, "claimed.pdf")).to_be_visible()
    await expect(code).to_have_value("")


async def test_changes_of_others_do_not_disturb_what_is_being_typed(desk: Page, cloud: Standin) -> None:
    cloud.add(job(5))
    form = await open_release(desk)
    await form.get_by_label("Copies").fill("42")
    cloud.add(job(9, "newer.pdf"), job(1, "older.pdf"))
    cloud.move(job(5).id, State.HELD, "Its pages were counted.")
    await expect(form).to_contain_text("Its pages were counted.")
    await expect(desk.locator(".job .title")).to_have_text(["newer.pdf", "report.pdf", "older.pdf"])
    await expect(form.get_by_label("Copies")).to_have_value("42")
    await expect(form.get_by_label("Copies")).to_be_focused()
    await expect(form).to_have_attribute("data-tone", "held")


async def test_a_network_that_is_away_is_told_and_tried_again(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    await expect(card(desk)).to_be_visible()
    await desk.context.set_offline(True)
    cloud.add(job(2, "meanwhile.pdf"))
    form = card(desk)
    await form.get_by_role("button", name="History").click()
    await expect(form.locator(".history").get_by_role("alert")).to_have_text("Pullprint cannot be reached.")
    await expect(desk.locator("#away")).to_contain_text("Your jobs are safe.")
    await desk.context.set_offline(False)
    await expect(card(desk, "meanwhile.pdf")).to_be_visible()
    await expect(desk.locator("#away")).to_be_hidden()
    cloud.broken = True
    cloud.wake()
    before = len(cloud.requests)
    await expect(desk.locator("#away")).to_contain_text("(status 502)")
    await desk.wait_for_timeout(1_500)
    assert len(cloud.requests) - before <= 4
    cloud.broken = False
    await desk.get_by_role("button", name="Try now").click()
    await expect(desk.locator("#away")).to_be_hidden()


async def test_a_page_that_opens_while_the_cloud_is_away_waits_for_it(page: Page, cloud: Standin) -> None:
    cloud.broken = True
    await page.reload()
    await expect(page.locator("#away")).to_contain_text("(status 502)")
    cloud.broken = False
    await page.get_by_role("button", name="Try now").click()
    await expect(page.locator("#entry")).to_be_visible()
    await expect(page.locator("#away")).to_be_hidden()


async def test_an_ended_session_asks_to_sign_in_and_keeps_what_was_typed(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    form = await open_release(desk)
    await form.get_by_label("Copies").fill("13")
    cloud.sessions.clear()
    await form.get_by_role("button", name="Print now").click()
    await expect(desk.locator("#sign-in").get_by_role("alert")).to_contain_text("Your session has ended.")
    await expect(desk.get_by_label("Name", exact=True)).to_have_value("ada@example.com")
    await expect(desk.get_by_label("Password")).to_be_focused()
    await expect(desk.locator("#desk")).to_be_hidden()
    await desk.keyboard.type(PASSWORD)
    await desk.keyboard.press("Enter")
    await expect(form.get_by_label("Copies")).to_have_value("13")
    await form.get_by_role("button", name="Print now").click()
    await expect(card(desk).locator(".word")).to_have_text("Printed")
    assert [wanted.changes for _, wanted in cloud.releases] == [{"copies": "13"}]


async def test_somebody_else_finds_nothing_of_the_one_before(desk: Page, cloud: Standin) -> None:
    cloud.add(job(title="private.pdf"))
    await expect(card(desk, "private.pdf")).to_be_visible()
    await desk.get_by_role("button", name="Sign out").click()
    await expect(desk.locator("#entry")).to_be_visible()
    assert cloud.sessions == set() and "private.pdf" not in await desk.content()
    await expect(desk.get_by_label("Name", exact=True)).to_have_value("")


async def test_printers_with_hostile_names_and_none_at_all(desk: Page, cloud: Standin) -> None:
    cloud.printers = [LOBBY.model_copy(update={"name": '"><b>\u202eybboL', "place": "x" * 900})]
    cloud.add(job())
    form = await open_release(desk)
    await expect(form.locator("[name=printer] option")).to_have_text(re.compile('^"><b>\ufffdybboL — x+…$'))
    assert await desk.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await form.get_by_role("button", name="Not now").click()
    cloud.printers = []
    form = await open_release(desk)
    await expect(form.get_by_role("alert")).to_contain_text("There is no printer to choose yet.")


async def test_everything_can_be_reached_by_keyboard_and_has_a_name(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    await open_release(desk)
    nameless = """() => [...document.querySelectorAll("button, input, select, summary, ul")]
      .filter((e) => e.checkVisibility() && !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()))
      .map((e) => e.outerHTML)"""
    assert await desk.evaluate(nameless) == []
    reached = set()
    for _ in range(25):
        await desk.keyboard.press("Tab")
        reached.add(await desk.evaluate("document.activeElement.name || document.activeElement.textContent.trim()"))
    assert reached >= {"printer", "copies", "sides", "Print now", "Not now", "Print…", "History", "Delete", "Sign out"}


async def test_the_page_is_small_and_has_no_inline_code() -> None:
    files = [FOLDER / "index.html", *sorted((FOLDER / "static").iterdir())]
    assert sum(path.stat().st_size for path in files) < 40 * 1024
    text = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)|https?://", text)
    for path in (FOLDER / "static").glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", path.read_text()
        )
