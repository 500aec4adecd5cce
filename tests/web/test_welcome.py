"""The link with which a user chooses a password."""

import secrets

import pytest
from playwright.async_api import Browser, Page, expect
from tests.web.conftest import assert_accessible, in_every_look, new_context, sign_in, watch
from tests.web.looks import card
from tests.web.standin import Standin, job

from pullprint.base.errors import TooMany

pytestmark = pytest.mark.asyncio(loop_scope="module")
german = pytest.mark.parametrize("page", [{"locale": "de-DE"}], indirect=True, ids=["german"])
CHOSEN = "another horse"
USED = "This link does not work any more"


def invited(cloud: Standin, user: str = "ada@example.com") -> str:
    """A new link."""
    token = secrets.token_urlsafe(32)
    cloud.invitations = {token: user}
    return f"{cloud.url}welcome#{token}"


@in_every_look
async def test_a_link_leads_by_a_new_password_to_the_jobs(page: Page, cloud: Standin) -> None:
    cloud.add(job())
    await page.goto(link := invited(cloud))
    await expect(page.get_by_role("heading", name="Welcome, ada@example.com")).to_be_visible()
    await expect(page.locator("main")).to_contain_text("Example Ltd")
    await expect(page).to_have_url(f"{cloud.url}welcome")
    field = page.get_by_label("New password")
    await expect(field).to_be_focused()
    await expect(field).to_have_attribute("autocomplete", "new-password")
    await expect(page.locator("[autocomplete=username]")).to_have_value("ada@example.com")
    await assert_accessible(page)
    await field.fill("seven77")
    await page.get_by_role("button", name="Save and sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("At least 8 characters.")
    assert cloud.chosen == [] and cloud.invitations
    await assert_accessible(page)
    await page.get_by_label("Show the password").check()
    await expect(field).to_have_attribute("type", "text")
    await field.fill(CHOSEN)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Your jobs")).to_be_focused()
    await expect(card(page)).to_be_visible()
    await expect(page).to_have_url(cloud.url)
    assert (cloud.chosen, cloud.remembered) == ([CHOSEN], [True])
    token = link.partition("#")[2]
    assert not any(token in request for request in cloud.requests)
    assert await page.evaluate("history.state") is None


@in_every_look
async def test_a_used_link_says_so_kindly_and_leads_to_signing_in(page: Page, cloud: Standin) -> None:
    link = invited(cloud)
    cloud.invitations.clear()
    await page.goto(link)
    await expect(page.get_by_role("heading", name=USED)).to_be_focused()
    await expect(page.locator("main")).to_contain_text("ask your administrator for a new link")
    await expect(page).to_have_url(f"{cloud.url}welcome")
    await assert_accessible(page)
    await page.get_by_role("link", name="Sign in").click()
    await sign_in(page)


async def test_a_link_that_somebody_else_used_meanwhile_keeps_nobodys_password(page: Page, cloud: Standin) -> None:
    await page.goto(invited(cloud))
    await page.get_by_label("New password").fill(CHOSEN)
    cloud.invitations.clear()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name=USED)).to_be_focused()
    assert cloud.chosen == [] and await page.locator("input").count() == 0


async def test_loading_again_keeps_the_link_and_another_pasted_over_it_counts(page: Page, cloud: Standin) -> None:
    await page.goto(invited(cloud))
    heading = page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("Welcome, ada@example.com")
    await page.reload()
    await expect(heading).to_have_text("Welcome, ada@example.com")
    await page.get_by_label("New password").fill("half a pass")
    await page.get_by_role("link", name="Skip to the content").press("Enter")
    await expect(page.get_by_label("New password")).to_have_value("half a pass")
    await page.goto(invited(cloud, "bob@example.com"))
    await expect(heading).to_have_text("Welcome, bob@example.com")
    await expect(page).to_have_url(f"{cloud.url}welcome")


async def test_an_address_without_a_token_is_no_link(page: Page, cloud: Standin) -> None:
    await page.goto(f"{cloud.url}welcome")
    await expect(page.get_by_role("heading", name=USED)).to_be_visible()


async def test_a_link_waits_for_a_cloud_that_is_away_or_busy(page: Page, cloud: Standin) -> None:
    await page.goto("about:blank")
    cloud.refusal = TooMany(seconds=2)
    await page.goto(invited(cloud))
    await expect(page.locator("#away")).to_contain_text("Too many attempts.")
    cloud.broken = True
    await page.get_by_role("button", name="Try now").click()
    await expect(page.locator("#away")).to_contain_text("(status 502)")
    cloud.broken, cloud.refusal = False, None
    await page.get_by_role("button", name="Try now").click()
    await expect(page.get_by_label("New password")).to_be_visible()
    await expect(page.locator("#away")).to_be_hidden()
    cloud.refusal = TooMany(seconds=2)
    await page.get_by_label("New password").fill(CHOSEN)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("Too many attempts.")
    await expect(page.get_by_label("New password")).to_have_value(CHOSEN)


async def test_whoever_was_signed_in_here_leaves_nothing(browser: Browser, cloud: Standin) -> None:
    context, troubles = await new_context(browser), list[str]()
    page = await context.new_page()
    watch(page, cloud, troubles)
    await page.goto(cloud.url)
    await sign_in(page)
    cloud.add(job(title="private.pdf"))
    await expect(card(page, "private.pdf")).to_be_visible()
    await page.goto(invited(cloud, "bob@example.com"))
    await expect(page.get_by_label("New password")).to_be_visible()
    assert "private.pdf" not in await page.content()
    await page.get_by_label("New password").fill(CHOSEN)
    cloud.jobs.clear()
    await page.get_by_label("Stay signed in on this device").uncheck()
    await page.get_by_role("button", name="Save and sign in").click()
    await expect(page.get_by_role("heading", name="Nothing is waiting")).to_be_visible()
    assert cloud.remembered == [True, False]
    assert await page.evaluate("localStorage.getItem('pullprint-name')") is None
    await context.close()
    assert troubles == []


@german
async def test_a_link_speaks_german(page: Page, cloud: Standin) -> None:
    await page.goto(invited(cloud))
    await expect(page.get_by_role("heading", name="Willkommen, ada@example.com")).to_be_visible()
    await expect(page.get_by_label("Neues Passwort")).to_be_focused()
    await assert_accessible(page)
    cloud.invitations.clear()
    await page.get_by_label("Neues Passwort").fill(CHOSEN)
    await page.get_by_role("button", name="Speichern und anmelden").click()
    await expect(page.get_by_role("heading", name="Dieser Link gilt nicht mehr")).to_be_visible()
    await expect(page.locator("main")).to_contain_text("bitten Sie Ihre Verwaltung")
