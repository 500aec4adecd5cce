"""The list of jobs: what people see of them, live, and what they do with several at once."""

import io
import re
import time

import pytest
from PIL import Image
from playwright.async_api import Browser, Page, expect
from tests.web.conftest import assert_accessible, in_every_look, new_context, sign_in, watch
from tests.web.looks import card, pick, print_sheet, sheet
from tests.web.standin import PRINTED, Standin, job

from pullprint.base.errors import NotAllowed
from pullprint.model.facts import Facts
from pullprint.model.states import State
from pullprint.model.ticket import Ticket

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOSTILE = {
    "markup": '<img src=x onerror="document.title=1"><script>document.title=2</script>{{7*7}}',
    "override": "invoice\u202efdp.exe\u2066\u200f",
    "long": "w" * 4_096,
    "controls": "a\x00b\x1b[31mc\u2028d\ne",
    "nothing": "",
    "wide": "報告書" * 600,
}


def picture() -> bytes:
    """A small WebP."""
    data = io.BytesIO()
    Image.new("RGB", (30, 40), "teal").save(data, "WEBP")
    return data.getvalue()


async def test_a_job_appears_moves_and_ends_without_reloading(desk: Page, cloud: Standin) -> None:
    await expect(desk.get_by_role("heading", name="Nothing is waiting")).to_be_visible()
    now = int(time.time())
    cloud.add(job(created=now - 130, expires=now + 1_900, node="reception"))
    await expect(card(desk).locator(".facts")).to_have_text("3 pages · 2 copies · two-sided · 4 sheets · colour")
    await expect(card(desk).locator(".wait")).to_have_text(
        re.compile(r"^2 minutes ago from desk\s· on reception\s· expires in 3[01] minutes$")
    )
    await expect(card(desk).locator(".state")).to_be_hidden()
    await expect(desk.locator("#news")).to_have_text("New: report.pdf: Ready.")
    cloud.move(job().id, State.SENDING, "Lobby is printing.", printed=2)
    await expect(card(desk).locator(".word")).to_have_text("Printing")
    await expect(card(desk)).to_contain_text("page 2 of 6")
    assert await card(desk).get_by_role("progressbar").evaluate("bar => bar.value / bar.max") == pytest.approx(1 / 3)
    await expect(card(desk).get_by_role("checkbox")).to_be_hidden()
    cloud.move(job().id, State.DONE, "Printed at Lobby.", printer="Lobby", printed=6, ended=now)
    await expect(desk.locator(".past .card .word")).to_have_text("Printed")
    await expect(desk.locator(".past .facts")).to_contain_text("Lobby · 6 pages")
    await expect(desk.locator("#news")).to_contain_text("report.pdf: Printed. Printed at Lobby.")
    assert [r for r in cloud.requests if "/events" in r] == ["GET /api/v1/events"]
    # Both from before signing in, and none since.
    assert [r for r in cloud.requests if r.startswith("GET /api/v1/jobs")] == ["GET /api/v1/jobs"]


async def test_without_a_stream_the_page_asks_and_waits(browser: Browser, cloud: Standin) -> None:
    cloud.streams = False
    context = await new_context(browser)
    page = await context.new_page()
    await page.goto(cloud.url)
    await sign_in(page)
    cloud.add(job())
    await expect(card(page)).to_be_visible(timeout=5_000)
    cloud.move(job().id, State.SENDING, "Lobby is printing.")
    await expect(card(page).locator(".word")).to_have_text("Printing")
    assert any("wait=25" in r for r in cloud.requests)
    await context.close()


@in_every_look
async def test_every_state_is_readable_and_fits_with_hostile_titles(desk: Page, cloud: Standin) -> None:
    for n, state in enumerate([*State, State.HELD]):
        cloud.add(job(n, list(HOSTILE.values())[n % len(HOSTILE)], state=state, host="<b>h</b>" + "h" * 999,
                      trouble=n % 2 == 0, sentence=HOSTILE["markup"] + "s" * 900))  # fmt: skip
    await expect(desk.locator(".card")).to_have_count(10)
    await assert_accessible(desk)
    assert await desk.title() == "Your jobs – Pullprint"
    assert await desk.locator(".card :is(img, script, b)").count() == 0
    shown = await desk.locator("main").inner_text()
    assert "<img src=x" in shown and "\ufffd" in shown and "Untitled" in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200f\x00\x1b\u2028]", await desk.content())
    assert max([len(title) for title in await desk.locator(".title").all_inner_texts()]) <= 255
    await desk.locator(".cards .card").first.get_by_role("button", name="Details").click()
    await expect(sheet(desk).locator(".way-line li")).to_have_count(1)
    await assert_accessible(desk)


async def test_a_trouble_says_what_to_do_and_goes_with_the_next_try(desk: Page, cloud: Standin) -> None:
    cloud.add(job(trouble=True, sentence="Lobby has no paper. Put some in, or choose another printer."))
    await expect(card(desk).locator(".word")).to_have_text("Not printed")
    await expect(card(desk).locator(".story")).to_have_text(
        "Lobby has no paper. Put some in, or choose another printer."
    )
    await expect(card(desk)).to_have_attribute("data-tone", "bad")
    cloud.move(job().id, State.PREPARED, "Released for Attic.", trouble=False)
    await expect(card(desk)).to_have_attribute("data-tone", "busy")


async def test_several_are_chosen_printed_in_their_order_and_each_tells_its_own_end(desk: Page, cloud: Standin) -> None:
    cloud.add(job(1, "first.pdf"), job(2, "second.pdf"), job(3, "third.pdf"))
    bar = desk.get_by_role("region", name="Chosen jobs")
    await expect(bar).to_be_hidden()
    await desk.get_by_role("button", name="Choose all").click()
    await expect(bar.get_by_role("button", name="Print 3 jobs")).to_be_visible()
    await pick(desk, "second.pdf")
    await expect(bar.get_by_role("button", name="Print 2 jobs")).to_be_visible()
    await bar.get_by_role("button", name="Choose none").click()
    await expect(bar).to_be_hidden()
    form = await print_sheet(desk, "third.pdf", "first.pdf")
    await form.locator(".printer", has_text="Lobby").click()
    await form.get_by_role("button", name="Print", exact=True).click()
    await expect(form).to_be_hidden()
    await expect(desk.locator(".toast")).to_contain_text("2 jobs on the way to Lobby.")
    for title in ("first.pdf", "third.pdf"):
        await expect(card(desk, title).locator(".word")).to_have_text("Printed")
    await expect(card(desk, "second.pdf").get_by_role("checkbox")).not_to_be_checked()
    assert [cloud.jobs[wanted].title for wanted, _ in cloud.releases] == ["first.pdf", "third.pdf"]
    await expect(bar).to_be_hidden()


async def test_deleting_can_be_undone_and_is_done_when_that_time_is_over(desk: Page, cloud: Standin) -> None:
    await desk.clock.install()
    cloud.add(job(1, "keep.pdf"), job(2, "<b>gone</b>.pdf"))
    await card(desk, "keep.pdf").get_by_role("button", name="Delete").click()
    await expect(card(desk, "keep.pdf")).to_have_count(0)
    await expect(card(desk, "gone").locator(".title")).to_be_focused()
    await desk.get_by_role("button", name="Undo").click()
    await expect(card(desk, "keep.pdf")).to_be_visible()
    await desk.clock.run_for(10_000)
    assert not any(request.startswith("DELETE") for request in cloud.requests)
    await card(desk, "gone").get_by_role("button", name="Delete").click()
    toast = desk.locator(".toast", has_text="“<b>gone</b>.pdf” is deleted.")
    await toast.get_by_role("button", name="Undo").focus()
    await desk.clock.run_for(20_000)
    await expect(toast).to_be_visible()  # whoever is about to press it has all the time
    await desk.locator("#main").focus()
    await desk.clock.run_for(7_000)
    await expect(desk.locator(".past .word")).to_have_text("Deleted")
    assert [r for r in cloud.requests if r.startswith("DELETE")] == [f"DELETE /api/v1/jobs/{job(2).id}"]


async def test_a_page_that_is_closed_before_undo_is_over_still_deletes(desk: Page, cloud: Standin) -> None:
    cloud.add(job(1), job(2, "two.pdf"))
    await pick(desk, "report.pdf", "two.pdf")
    await desk.locator(".bar").get_by_role("button", name="Delete").click()
    await expect(desk.locator(".toast")).to_contain_text("2 jobs are deleted.")
    await desk.goto(cloud.url + "account")
    await desk.get_by_role("heading", name="Account").wait_for()
    for _ in range(50):
        if [view.state for view in cloud.jobs.values()] == [State.CANCELLED, State.CANCELLED]:
            break
        await desk.wait_for_timeout(50)
    assert [view.state for view in cloud.jobs.values()] == [State.CANCELLED, State.CANCELLED]


async def test_a_delete_that_is_refused_brings_the_job_back_with_the_reason(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    cloud.refusal = NotAllowed(reason="it is being printed")
    await card(desk).get_by_role("button", name="Delete").click()
    await desk.locator(".toast").get_by_role("button", name="Close").click()
    await expect(card(desk).get_by_role("alert")).to_contain_text("it is being printed")
    await expect(card(desk)).to_have_attribute("data-tone", "bad")


async def test_an_uncertain_job_came_out_when_its_owner_says_so(desk: Page, cloud: Standin) -> None:
    cloud.add(job(state=State.UNCERTAIN, sentence="Lobby fell silent."))
    await card(desk).get_by_role("button", name="It came out").click()
    await expect(desk.locator(".past .word")).to_have_text("Printed")


async def test_two_browsers_see_one_print(desk: Page, browser: Browser, cloud: Standin) -> None:
    context, troubles = await new_context(browser), list[str]()
    other = await context.new_page()
    watch(other, cloud, troubles)
    await other.goto(cloud.url)
    await sign_in(other)
    cloud.add(job())
    cloud.way, cloud.once = [*PRINTED[:2]], True
    for page in (desk, other):
        form = await print_sheet(page)
        await form.locator(".printer", has_text="Lobby").click()
    for page in (desk, other):
        await sheet(page).get_by_role("button", name="Print", exact=True).click(timeout=5_000)
    await expect(sheet(other).get_by_role("alert")).to_contain_text("being printed")
    await other.keyboard.press("Escape")
    cloud.move(job().id, *PRINTED[2])
    for page in (desk, other):
        await expect(page.locator(".past .word")).to_have_text("Printed")
    assert len(cloud.releases) == 1
    await context.close()
    assert troubles == []


async def test_changes_of_others_disturb_neither_focus_nor_choice(desk: Page, cloud: Standin) -> None:
    cloud.add(job(5))
    await pick(desk)
    details = card(desk).get_by_role("button", name="Details")
    await details.focus()
    cloud.add(job(9, "newer.pdf"), job(1, "older.pdf"))
    await expect(desk.locator(".card .title")).to_have_text(["newer.pdf", "report.pdf", "older.pdf"])
    await expect(details).to_be_focused()
    await expect(card(desk).get_by_role("checkbox")).to_be_checked()
    cloud.move(job(5).id, State.DONE, "Printed.")
    await expect(details).to_be_focused()


async def test_the_picture_is_opened_in_the_browser_and_asked_for_again(desk: Page, cloud: Standin) -> None:
    await desk.clock.install()
    first, late = job(1, "first.pdf", picture=True), job(2, "late.pdf", picture=True)
    cloud.pictures[first.id] = picture()
    cloud.add(first, late, job(3, "none.pdf", facts=Facts(pages=1), ticket=Ticket()))
    await desk.clock.run_for(1_000)
    image = card(desk, "first.pdf").locator("img")
    await expect(image).to_have_attribute("src", re.compile("^blob:"))
    assert await image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [30, 40]
    assert await desk.locator(".thumb img").count() == 1
    cloud.pictures[late.id] = picture()
    await desk.clock.run_for(5_000)
    await expect(card(desk, "late.pdf").locator("img")).to_have_attribute("src", re.compile("^blob:"))
    assert sum("/api/v1/pictures" in r for r in cloud.requests) == 2


async def test_a_picture_that_is_damaged_leaves_the_drawn_page(desk: Page, cloud: Standin) -> None:
    bad, good = job(1, "bad.pdf", picture=True), job(2, "good.pdf", picture=True)
    cloud.pictures |= {bad.id: b"no image", good.id: picture()}
    cloud.add(bad, good)
    await expect(card(desk, "good.pdf").locator("img")).to_be_visible()
    await expect(card(desk, "bad.pdf").locator(".thumb i")).to_have_count(4)


async def test_details_show_the_way_of_a_job_and_go_on_by_themselves(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    cloud.traces[job().id][0] = cloud.traces[job().id][0].model_copy(
        update={"detail": {"order": "a1b2", "<b>": "\u202ex"}}
    )
    await card(desk).get_by_role("button", name="Details").click()
    way = sheet(desk).get_by_role("list", name="What happened to it")
    await expect(way.get_by_role("listitem")).to_have_count(1)
    await expect(way.get_by_text("a1b2")).to_be_hidden()
    await way.get_by_text("Stored and sealed on desk.").click()
    await expect(way).to_contain_text(re.compile("event.*stored.*host.*desk.*order.*a1b2.*<b>.*\ufffdx"))
    cloud.move(job().id, State.SENDING, "Lobby is being sent the document.")
    await expect(way.get_by_role("listitem")).to_have_count(2)
    await expect(way.get_by_text("a1b2")).to_be_visible()  # what was open stays open
    await desk.go_back()
    await expect(sheet(desk)).to_have_count(0)
    await expect(desk).to_have_url(cloud.url)
    await expect(card(desk).get_by_role("button", name="Details")).to_be_focused()


async def test_pages_and_sheets_are_those_that_the_ticket_asks_for(desk: Page, cloud: Standin) -> None:
    five = Facts(pages=5, color_pages=0)
    part = Ticket(copies=3, options=(("sides", "two-sided-long-edge"), ("page-ranges", "2-4")))
    many = Ticket(copies=2, options=(("sides", "two-sided-long-edge"), ("number-up", "2")))
    wild = Ticket(options=(("page-ranges", "7-9,x-y"),))
    cloud.add(*(job(n, f"{n}.pdf", facts=five, ticket=ticket) for n, ticket in enumerate((part, many, wild), 1)))
    await expect(card(desk, "1.pdf").locator(".facts")).to_contain_text("3 of 5 pages")
    await expect(card(desk, "1.pdf").locator(".facts")).to_contain_text("6 sheets")
    await expect(card(desk, "2.pdf").locator(".facts")).to_contain_text("5 pages")
    await expect(card(desk, "2.pdf").locator(".facts")).to_contain_text("4 sheets")
    await expect(card(desk, "3.pdf").locator(".facts")).to_contain_text("5 pages")
