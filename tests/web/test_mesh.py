"""Copies of a job on the page, and the office's hosts."""

import re

import pytest
from playwright.async_api import Page, expect
from tests.web.conftest import assert_accessible, in_every_look
from tests.web.looks import card, sheet
from tests.web.standin import Standin, job

from pullprint.model.states import State
from pullprint.wire.views import MeshNodeView, MeshView

pytestmark = pytest.mark.asyncio(loop_scope="module")
german = pytest.mark.parametrize("desk", [{"locale": "de-DE"}], indirect=True, ids=["german"])
HOSTS = (
    MeshNodeView(node="1" * 32, name="reception", role="super", awake=True),
    MeshNodeView(node="2" * 32, name="workshop", role="normal", awake=True),
    MeshNodeView(node="3" * 32, name="laptop-of-ada", role="client"),
)
OFFICE = MeshView(site="hq", revision=0, nodes=HOSTS)


@in_every_look
async def test_copies_are_dots_for_the_eye_and_words_for_the_ear(desk: Page, cloud: Standin) -> None:
    names = ("desk", "workshop", "attic")
    cloud.add(job(copies=3, awake=2, holders=names), job(2, "new.pdf", copies=1, awake=1), job(3, "unknown.pdf"))
    await expect(card(desk).get_by_role("img", name="3 copies, 2 awake")).to_be_visible()
    await expect(card(desk).locator(".copies i")).to_have_count(3)
    await expect(card(desk).locator(".copies .on")).to_have_count(2)
    await expect(card(desk, "new.pdf").get_by_role("img", name="1 copy, 1 awake")).to_be_visible()
    await expect(card(desk, "unknown.pdf").locator(".copies")).to_have_count(0)
    await assert_accessible(desk)
    await card(desk).get_by_role("button", name="Details").click()
    await expect(sheet(desk)).to_contain_text(re.compile("Held by\\s*desk, workshop, attic"))
    await expect(sheet(desk)).to_contain_text(re.compile("Sealed copies\\s*3 copies, 2 awake"))
    await assert_accessible(desk)
    view = cloud.jobs[job().id]
    cloud.move(view.id, State.HELD, view.sentence, awake=3)
    await expect(sheet(desk).get_by_role("img", name="3 copies, 3 awake")).to_be_visible()


async def test_a_job_that_has_ended_has_no_copies(desk: Page, cloud: Standin) -> None:
    cloud.add(job(copies=3, awake=3), job(2, "other.pdf", copies=3, awake=3))
    await expect(card(desk).locator(".copies")).to_have_count(1)
    cloud.move(job().id, State.DONE, "Printed at Lobby.")
    await expect(card(desk)).to_contain_text("Printed")
    await expect(card(desk).locator(".copies")).to_have_count(0)


async def test_absurd_numbers_of_copies_do_not_fill_the_screen(desk: Page, cloud: Standin) -> None:
    cloud.add(job(copies=100_000, awake=99_999))
    await expect(card(desk).locator(".copies i")).to_have_count(7)


@in_every_look
async def test_the_office_shows_its_hosts_and_how_many_are_awake(desk: Page, cloud: Standin) -> None:
    cloud.sites = [OFFICE]
    await desk.get_by_role("link", name="Your office").click()
    await expect(desk.get_by_role("heading", name="Your office")).to_be_focused()
    await expect(desk.get_by_role("status").first).to_have_text("2 of 3 hosts are awake.")
    rows = desk.locator(".sites li")
    await expect(rows.nth(0)).to_contain_text(re.compile("reception.*awake\\s· always on"))
    await expect(rows.nth(2)).to_contain_text(re.compile("laptop-of-ada.*away\\s· comes and goes"))
    await assert_accessible(desk)
    await expect(desk).to_have_title("Your office – Pullprint")
    await desk.get_by_role("link", name="Account").click()
    await desk.get_by_role("link", name="Your office").click()
    await expect(rows).to_have_count(3)


async def test_several_sites_are_told_apart_and_hostile_names_are_text(desk: Page, cloud: Standin) -> None:
    odd = MeshNodeView(node="4" * 32, name="<b>x</b>\u202e", role="constructor", awake=True)
    cloud.sites = [
        OFFICE,
        MeshView(site="annex", revision=0, nodes=(odd,)),
        MeshView(site="shed", revision=0, nodes=()),
    ]
    await desk.get_by_role("link", name="Your office").click()
    await expect(desk.locator(".sites h2")).to_have_text(["hq", "annex"])
    await expect(desk.locator(".sites li").last).to_contain_text("<b>x</b>\ufffd")
    await expect(desk.get_by_role("status").first).to_have_text("3 of 4 hosts are awake.")


async def test_an_office_without_hosts_and_one_that_cannot_be_asked_say_so(desk: Page, cloud: Standin) -> None:
    await desk.get_by_role("link", name="Your office").click()
    await expect(desk.get_by_text("No host has joined yet.")).to_be_visible()
    await desk.get_by_role("link", name="Jobs").click()
    cloud.broken = True
    await desk.get_by_role("link", name="Your office").click()
    await expect(desk.get_by_role("alert")).to_contain_text("(status 502)")
