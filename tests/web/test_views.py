"""Signing in, history, account, device login and claiming."""

import asyncio
import re
import time

import pytest
from playwright.async_api import Browser, Page, expect
from tests.web.conftest import assert_accessible, in_every_look, new_context, sign_in, watch
from tests.web.looks import card, sheet
from tests.web.standin import LOGIN, PASSWORD, Standin, job

from pullprint.base.errors import NotAllowed
from pullprint.model.states import State

pytestmark = pytest.mark.asyncio(loop_scope="module")
german = pytest.mark.parametrize("page", [{"locale": "de-DE"}], indirect=True, ids=["german"])


@in_every_look
async def test_signing_in_tells_what_is_wrong_and_keeps_what_was_typed(page: Page, cloud: Standin) -> None:
    await assert_accessible(page)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("Type your name and your password.")
    await page.get_by_label("Name", exact=True).fill("ada@example.com")
    await page.get_by_label("Password").fill("guess")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("name or password is wrong")
    await expect(page.get_by_label("Name", exact=True)).to_have_value("ada@example.com")
    await assert_accessible(page)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Your jobs")).to_be_focused()


@pytest.mark.parametrize("stay", [True, False])
async def test_staying_signed_in_is_the_persons_choice(page: Page, cloud: Standin, stay: bool) -> None:
    box = page.get_by_label("Stay signed in on this device")
    await expect(box).to_be_checked()
    await box.set_checked(stay)
    await sign_in(page)
    assert cloud.remembered == [stay]
    await page.reload()
    await expect(page.get_by_role("heading", name="Your jobs")).to_be_visible()


async def test_somebody_else_finds_nothing_of_the_one_before(desk: Page, cloud: Standin) -> None:
    cloud.add(job(title="private.pdf"))
    await expect(card(desk, "private.pdf")).to_be_visible()
    await desk.get_by_role("link", name="Account").click()
    await desk.get_by_role("button", name="Sign out", exact=True).click()
    await expect(desk.get_by_label("Name", exact=True)).to_be_focused(timeout=8_000)
    assert cloud.sessions == set() and "private.pdf" not in await desk.content()
    await expect(desk.get_by_label("Name", exact=True)).to_have_value("")


async def test_what_was_deleted_a_moment_before_signing_out_is_deleted(desk: Page, cloud: Standin) -> None:
    cloud.add(view := job(title="secret.pdf"))
    await card(desk, "secret.pdf").get_by_role("button", name="Delete").click()
    await desk.get_by_role("link", name="Account").click()
    await desk.get_by_role("button", name="Sign out", exact=True).click()
    await expect(desk.get_by_label("Name", exact=True)).to_be_focused(timeout=8_000)
    deleted, ended = (f"DELETE /api/v1/{path}" for path in (f"jobs/{view.id}", "session"))
    assert [request for request in cloud.requests if request in (deleted, ended)] == [deleted, ended]


async def test_somebody_else_after_a_session_that_ended_finds_nothing_either(desk: Page, cloud: Standin) -> None:
    cloud.add(job(title="private.pdf"))
    await expect(card(desk, "private.pdf")).to_be_visible()
    cloud.sessions.clear()
    cloud.wake()
    over = desk.locator("dialog.over")
    await over.get_by_label("Name", exact=True).fill("bob@example.com")
    await over.get_by_label("Password").fill(PASSWORD)
    cloud.jobs.clear()
    await desk.keyboard.press("Enter")
    await expect(desk.get_by_role("heading", name="Nothing is waiting")).to_be_visible()
    await expect(over).to_have_count(0)
    assert "private.pdf" not in await desk.content()


async def test_a_network_that_is_away_is_told_and_tried_again(desk: Page, cloud: Standin) -> None:
    cloud.add(job())
    await expect(card(desk)).to_be_visible()
    await desk.context.set_offline(True)
    await expect(desk.locator("#away")).to_contain_text("Pullprint cannot be reached.")
    await expect(desk.locator("#away")).to_contain_text("Your jobs are safe.")
    cloud.add(job(2, "meanwhile.pdf"))
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
    await expect(page.get_by_label("Password")).to_be_visible()
    await expect(page.locator("#away")).to_be_hidden()


@in_every_look
async def test_history_goes_on_by_pages_and_shows_each_way(desk: Page, cloud: Standin) -> None:
    now = int(time.time())
    for n in range(5):
        cloud.add(job(n, f"{n}.pdf", state=State.DONE, ended=now - (4 - n) * 90_000, printer="Lobby", printed=n + 1,
                      created=now - (4 - n) * 90_000 - 60))  # fmt: skip
    await desk.get_by_role("link", name="History", exact=True).click()
    await expect(desk.get_by_role("heading", name="History")).to_be_focused()
    names = desk.locator(".entry-row .names > bdi")
    await expect(names).to_have_text(["4.pdf", "3.pdf"])
    await expect(desk.locator(".entry-row").first).to_contain_text(re.compile("Printed\\s· Lobby\\s· 5 pages"))
    await desk.get_by_role("button", name="Show earlier ones").click()
    await expect(names).to_have_count(4)
    await desk.get_by_role("button", name="Show earlier ones").click()
    await expect(names).to_have_text(["4.pdf", "3.pdf", "2.pdf", "1.pdf", "0.pdf"])
    await expect(desk.get_by_role("button", name="Show earlier ones")).to_be_hidden()
    await expect(desk.get_by_role("heading", name="Today")).to_be_visible()
    await assert_accessible(desk)
    await desk.locator(".entry-row").last.click()
    await expect(sheet(desk).locator(".way-line li")).to_have_count(1)
    await desk.keyboard.press("Escape")
    await expect(sheet(desk)).to_have_count(0)
    # The sheet takes its own step back first; Chromium drops one of two at the very same moment.
    # (No wait_for_function: it evaluates a string in the page, which the page's policy forbids.)
    while await desk.evaluate("history.state?.sheets"):
        await asyncio.sleep(0.02)
    await desk.go_back()
    await expect(desk.get_by_role("heading", name="Your jobs")).to_be_visible()


async def test_an_empty_history_says_so(desk: Page, cloud: Standin) -> None:
    await desk.goto(f"{cloud.url}history")
    await expect(desk.get_by_text("Nothing has been printed yet.")).to_be_visible()


@in_every_look
async def test_sessions_are_listed_and_ended_one_by_one(desk: Page, cloud: Standin) -> None:
    await desk.get_by_role("link", name="Account").click()
    places = desk.get_by_role("list", name="Where you are signed in").get_by_role("listitem")
    await expect(places).to_have_text([re.compile("Chrome on Android.*this device"), re.compile("ada on reception")])
    await expect(places.last).to_contain_text(re.compile("Terminal\\s· used 2 hours ago"))
    await assert_accessible(desk)
    await desk.get_by_role("button", name="Sign out: ada on reception").click()
    await expect(places).to_have_count(1)
    assert "DELETE /api/v1/sessions/s2" in cloud.requests


async def test_sign_out_everywhere_ends_the_page_in_another_browser(
    desk: Page, browser: Browser, cloud: Standin
) -> None:
    context, troubles = await new_context(browser), list[str]()
    other = await context.new_page()
    watch(other, cloud, troubles)
    await other.goto(cloud.url)
    await sign_in(other)
    await desk.get_by_role("link", name="Account").click()
    await desk.get_by_role("button", name="Sign out everywhere").click()
    await expect(desk.get_by_label("Name", exact=True)).to_be_focused(timeout=8_000)
    await expect(other.locator("dialog.over")).to_contain_text("Your session has ended.")
    await context.close()
    assert troubles == []


@in_every_look
async def test_a_device_login_is_shown_and_allowed_after_signing_in(page: Page, cloud: Standin) -> None:
    await page.goto(f"{cloud.url}login?code={LOGIN.code}")
    await sign_in(page)
    panel = page.locator(".panel")
    await expect(panel).to_contain_text(re.compile("Is this you.*ada.*reception.*Office.*WDJB-MJHT"))
    await expect(page.get_by_role("heading", name="Is this you?")).to_be_focused()
    assert cloud.answers == []
    await assert_accessible(page)
    await page.get_by_role("button", name="Allow").click()
    await expect(panel.get_by_role("status")).to_have_text(
        "ada on reception is signed in. You can go back to the terminal."
    )
    assert cloud.answers == [(LOGIN.code, True)]


async def test_a_device_login_is_typed_and_refused(desk: Page, cloud: Standin) -> None:
    await desk.goto(f"{cloud.url}login")
    code = desk.get_by_label("Code from the terminal")
    await code.fill("AAAA-BBBB")
    await code.press("Enter")
    await expect(desk.get_by_role("alert")).to_contain_text("There is no such code")
    await code.fill(LOGIN.code.lower())
    await code.press("Enter")
    cloud.refusal = NotAllowed(reason="it is over")
    await desk.get_by_role("button", name="No").click()
    await expect(desk.get_by_role("alert")).to_contain_text("it is over")
    cloud.refusal = None
    await desk.get_by_role("button", name="No").click()
    await expect(desk.get_by_role("status").get_by_text("Refused. Nobody was signed in.")).to_be_visible()
    assert cloud.answers == [(LOGIN.code, False)]


@in_every_look
async def test_a_job_is_claimed_by_its_code(desk: Page, cloud: Standin) -> None:
    await desk.get_by_role("link", name="Claim it by its code").click()
    code = desk.get_by_label("Claim code")
    await code.fill("0000-0000")
    await desk.get_by_role("button", name="Claim").click()
    await expect(desk.get_by_role("alert")).to_contain_text("no such code")
    await assert_accessible(desk)
    await desk.goto(f"{cloud.url}claim?code=7kq2-m9xd")
    await expect(code).to_have_value("7kq2-m9xd")
    assert "claimed.pdf" not in await desk.content()  # a link alone claims nothing
    await code.press("Enter")
    await expect(card(desk, "claimed.pdf")).to_be_visible()
    await expect(desk).to_have_url(cloud.url)


@german
async def test_everything_is_german_for_a_german_browser(page: Page, cloud: Standin) -> None:
    await expect(page.get_by_role("heading", name="Anmelden")).to_be_visible()
    assert await page.evaluate("document.documentElement.lang") == "de"
    await sign_in(page)
    now = int(time.time())
    cloud.add(job(created=now - 130, expires=now + 1_900))
    await expect(card(page).locator(".facts")).to_have_text("3 Seiten · 2 Exemplare · beidseitig · 4 Blätter · farbig")
    await expect(card(page).locator(".wait")).to_have_text(re.compile("^vor 2 Minuten.*läuft in 31 Minuten ab$"))
    await card(page).locator(".thumb").click()
    await expect(page.get_by_role("button", name="1 Auftrag drucken")).to_be_visible()
    await assert_accessible(page)
    await page.get_by_role("link", name="Konto").click()
    await page.get_by_label("Sprache").select_option("English")
    await expect(page.get_by_role("heading", name="Account")).to_be_visible()
    await page.get_by_role("link", name="Jobs").click()
    await expect(card(page)).to_contain_text("3 pages")
    await page.reload()
    await expect(card(page)).to_contain_text("3 pages")


async def test_everything_is_reached_by_keyboard_and_large_enough_for_a_thumb(desk: Page, cloud: Standin) -> None:
    cloud.add(job(), job(2, "two.pdf", state=State.UNCERTAIN))
    await card(desk).locator(".thumb").click()
    reached = set()
    for _ in range(30):
        await desk.keyboard.press("Tab")
        reached.add(
            await desk.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent.trim()")
        )
    assert reached >= {"Jobs", "History", "Account", "Add document", "Choose all", "Details", "Delete", "It came out",
                       "Print 1 job", "Choose none"}  # fmt: skip
    small = await desk.evaluate("""[...document.querySelectorAll("button, nav a, select")].filter((e) => e.checkVisibility())
        .map((e) => [e.textContent, e.getBoundingClientRect()]).filter(([, box]) => box.width < 44 || box.height < 44)
        .map(([text]) => text)""")
    assert small == []
