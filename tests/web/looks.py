"""What tests find on the page, in a person's words."""

from playwright.async_api import Locator, Page


def card(page: Page, title: str = "report.pdf") -> Locator:
    """A job's card."""
    return page.locator(".card", has=page.get_by_role("heading", name=title))


async def pick(page: Page, *titles: str) -> None:
    """Choose jobs by pressing their cards."""
    for title in titles or ("report.pdf",):
        await card(page, title).locator(".thumb").click()


def sheet(page: Page) -> Locator:
    """The sheet that is open."""
    return page.get_by_role("dialog")


async def print_sheet(page: Page, *titles: str) -> Locator:
    """The print sheet of jobs."""
    await pick(page, *titles)
    await page.locator(".bar .primary").click()
    await sheet(page).locator(".chosen, .picker").wait_for()
    return sheet(page)


async def choose_printer(page: Page, name: str) -> None:
    """Take another printer in the open print sheet."""
    change = sheet(page).get_by_role("button", name="Change")
    if await change.count():
        await change.click()
    await sheet(page).locator(".printer", has_text=name).first.click()
