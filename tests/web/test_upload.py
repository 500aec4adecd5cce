"""Documents from this device: chosen, dropped, shared by another app; and the worker that keeps the page's shell."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect
from tests.web.conftest import assert_accessible, in_every_look, new_context, sign_in, watch
from tests.web.looks import card
from tests.web.standin import UPLOAD_LIMIT, Standin, job

from pullprint.base.errors import TooMany

pytestmark = pytest.mark.asyncio(loop_scope="module")
PDF = b"%PDF-1.4\n" + os.urandom(300_000)
DROP = """([names, text]) => {
  const data = new DataTransfer();
  for (const name of names) data.items.add(new File([text], name, { type: "text/plain" }));
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""


def files(page: Page, *names: str, data: bytes = PDF) -> list[dict[str, object]]:
    return [{"name": name, "mimeType": "", "buffer": data} for name in names]


async def test_chosen_files_become_jobs_and_only_the_node_can_read_them(desk: Page, cloud: Standin) -> None:
    bodies: list[bytes] = []
    desk.on("request", lambda r: r.method == "PUT" and bodies.append(r.post_data_buffer or b""))
    async with desk.expect_file_chooser() as chooser:
        await desk.get_by_role("button", name="Add document").click()
    await (await chooser.value).set_files(files(desk, "letter.pdf", "notes.odt"))  # type: ignore[arg-type]
    await expect(card(desk, "letter.pdf")).to_be_visible()
    await expect(card(desk, "notes.odt")).to_be_visible()
    await expect(desk.locator(".upload")).to_have_count(0)
    assert sorted((wanted.title, wanted.content_type, wanted.size) for wanted, _ in cloud.uploaded) == [
        ("letter.pdf", "application/pdf", len(PDF)),
        ("notes.odt", "application/vnd.oasis.opendocument.text", len(PDF)),
    ]
    assert [document for _, document in cloud.uploaded] == [PDF, PDF]
    assert not any(b"%PDF" in body for body in bodies)


@in_every_look
async def test_files_dropped_anywhere_and_refused_ones_say_why(desk: Page, cloud: Standin) -> None:
    await desk.goto(f"{cloud.url}history")
    await desk.get_by_role("heading", name="History").wait_for()
    await desk.evaluate(DROP, [["a.txt", "<b>\u202e.txt"], "hello"])
    await expect(card(desk, "a.txt")).to_be_visible()
    await expect(card(desk, "<b>\ufffd.txt")).to_be_visible()
    assert [document for _, document in cloud.uploaded] == [b"hello", b"hello"]
    cloud.refusal = TooMany(seconds=30)
    await desk.evaluate(DROP, [["late.txt"], "hello"])
    line = desk.locator(".upload", has_text="late.txt")
    await expect(line.get_by_role("alert")).to_contain_text("Wait 30 seconds")
    await assert_accessible(desk)
    cloud.refusal = None
    await line.get_by_role("button", name="Cancel: late.txt").click()
    await expect(line).to_have_count(0)
    await desk.evaluate(DROP, [["empty.txt"], ""])
    await expect(desk.locator(".upload").get_by_role("alert")).to_contain_text("This file is empty.")


async def test_a_file_that_is_too_large_is_refused_before_it_is_sent(desk: Page, cloud: Standin) -> None:
    await desk.locator("input[type=file]").set_input_files(files(desk, "film.pdf", data=bytes(UPLOAD_LIMIT + 1)))  # type: ignore[arg-type]
    await expect(desk.locator(".upload").get_by_role("alert")).to_contain_text("larger than the 8 MB")
    assert not any(request.startswith("PUT") for request in cloud.requests)


async def test_an_upload_can_be_cancelled_or_tried_again(desk: Page, cloud: Standin) -> None:
    cloud.hold_uploads = asyncio.Event()
    choose = desk.locator("input[type=file]").set_input_files
    await choose(files(desk, "slow.pdf"))  # type: ignore[arg-type]
    await expect(desk.locator(".upload")).to_contain_text("a computer of your office makes it ready")
    await desk.get_by_role("button", name="Cancel: slow.pdf").click()
    await expect(desk.locator(".upload")).to_have_count(0)
    await desk.wait_for_timeout(200)  # the cloud hears of it
    cloud.hold_uploads.set()
    cloud.broken = True
    await choose(files(desk, "again.pdf"))  # type: ignore[arg-type]
    line = desk.locator(".upload", has_text="again.pdf")
    await expect(line.get_by_role("alert")).to_contain_text("(status 502)")
    cloud.broken = False
    await line.get_by_role("button", name="Try again").click()
    await expect(card(desk, "again.pdf")).to_be_visible()
    await expect(card(desk, "slow.pdf")).to_have_count(0)


@pytest_asyncio.fixture(loop_scope="module")
async def installed(browser: Browser, cloud: Standin, tmp_path: Path) -> AsyncIterator[Page]:
    """The page with its service worker at work, nobody signed in."""
    context, troubles = await new_context(browser, service_workers="allow"), list[str]()
    page = await context.new_page()
    watch(page, cloud, troubles)
    await page.goto(cloud.url)
    await page.evaluate(
        """new Promise((resolve) => navigator.serviceWorker.controller ? resolve()
          : navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }))"""
    )
    yield page
    await context.close()
    assert troubles == []


SHARE = """([name, type, text]) => {
  const form = document.createElement("form");
  Object.assign(form, { method: "post", action: "/share", enctype: "multipart/form-data" });
  const input = Object.assign(document.createElement("input"), { type: "file", name: "files" });
  const data = new DataTransfer();
  if (name) data.items.add(new File([text], name, { type }));
  input.files = data.files;
  const note = Object.assign(document.createElement("input"), { name: "text", value: name ? "" : text });
  form.append(...(name ? [input] : [note]));
  document.body.append(form);
  form.submit();
}"""
KEPT = "caches.open('pullprint-shared').then((cache) => cache.keys()).then((keys) => keys.length)"


async def test_what_another_app_shares_becomes_a_job_when_somebody_says_so(installed: Page, cloud: Standin) -> None:
    await installed.evaluate(SHARE, ["Ä photo.png", "image/png", "png bytes"])
    await installed.wait_for_url("**/share")
    assert await installed.evaluate(KEPT) == 1
    await sign_in(installed)
    line = installed.locator(".shared")
    await expect(line).to_contain_text("Ä photo.png")
    await assert_accessible(installed)
    assert cloud.uploaded == [], "any page can share something: nobody has asked for it yet"
    await line.get_by_role("button", name="Add").click()
    await expect(card(installed, "Ä photo.png")).to_be_visible()
    await expect(installed).to_have_url(cloud.url)
    assert await installed.evaluate(KEPT) == 0
    [(wanted, document)] = cloud.uploaded
    assert (wanted.content_type, document) == ("image/png", b"png bytes")
    await installed.evaluate(SHARE, ["", "", "a text that was shared"])
    await line.get_by_role("button", name="Add").click()
    await expect(card(installed, "Text.txt")).to_be_visible()
    assert cloud.uploaded[-1][1] == b"a text that was shared"
    assert not any(request.startswith("POST /share") for request in cloud.requests)


async def test_what_was_shared_is_taken_by_one_page_and_can_be_discarded(installed: Page, cloud: Standin) -> None:
    await installed.evaluate(SHARE, ["once.png", "image/png", "png bytes"])
    await installed.wait_for_url("**/share")
    await sign_in(installed)
    other = await installed.context.new_page()
    await other.goto(cloud.url)
    for page in (installed, other):
        await page.locator(".shared").wait_for()
    for page in (installed, other):
        await page.locator(".shared").get_by_role("button", name="Add").click()
    await expect(card(installed, "once.png")).to_be_visible()
    await installed.wait_for_timeout(300)
    assert len(cloud.uploaded) == 1
    await other.close()
    await installed.evaluate(SHARE, ["unwanted.png", "image/png", "png bytes"])
    await installed.locator(".shared").get_by_role("button", name="Discard").click()
    await expect(installed.locator(".shared")).to_have_count(0)
    assert await installed.evaluate(KEPT) == 0 and len(cloud.uploaded) == 1


async def test_share_without_the_worker_ends_at_home(desk: Page, cloud: Standin) -> None:
    await desk.goto(f"{cloud.url}share")
    await expect(desk.get_by_role("heading", name="Your jobs")).to_be_visible()
    await expect(desk).to_have_url(cloud.url)


async def test_the_shell_opens_without_the_network_and_says_so(installed: Page, cloud: Standin) -> None:
    cloud.add(job())
    await sign_in(installed)
    await expect(card(installed)).to_be_visible()
    await installed.context.set_offline(True)
    await installed.goto(f"{cloud.url}p/p1")
    await expect(installed.locator("#away")).to_contain_text("Pullprint cannot be reached.")
    await installed.context.set_offline(False)
    await expect(installed.get_by_role("heading", name="Lobby", level=1)).to_be_visible()


async def test_the_worker_keeps_the_shell_and_nothing_of_the_api(installed: Page, cloud: Standin) -> None:
    cloud.add(job())
    await sign_in(installed)
    await expect(card(installed)).to_be_visible()
    kept = await installed.evaluate(
        """async () => (await Promise.all((await caches.keys()).map(async (name) =>
          (await (await caches.open(name)).keys()).map((request) => new URL(request.url).pathname)))).flat()"""
    )
    assert "/" in kept
    assert any(path.endswith("/app.js") for path in kept)
    assert all(path == "/" or re.fullmatch(r"/static/~[0-9a-f]{12}/[\w./-]+", path) for path in kept)
