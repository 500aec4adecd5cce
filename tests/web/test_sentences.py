"""What the daemons say in English is shown in German, with everything in it that was filled in."""

from string import Formatter

import pytest
from playwright.async_api import Page
from tests.language.sentences import sentences
from tests.language.test_german import catalogue

SAY = """
async ([pairs, texts]) => {
  const { Sentences } = await import("/static/sentences.js");
  const sentences = new Sentences(pairs);
  return texts.map((text) => sentences.say(text));
}
"""
OFF = "The printer does not answer: it is switched off, asleep or not on the network."


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def say(page: Page, *texts: str) -> list[str]:
    """What the page makes of *texts* of the daemons."""
    found: list[str] = await page.evaluate(SAY, [list(catalogue().items()), list(texts)])
    return found


async def test_each_sentence_is_found_again_and_keeps_what_was_filled_in(page: Page) -> None:
    german = catalogue()
    asked = {_fill(english): _fill(german[english]) for english in sentences()}
    assert dict(zip(asked, await say(page, *asked), strict=True)) == asked


async def test_several_sentences_in_one_text(page: Page) -> None:
    german = catalogue()
    safe, what = (
        "Nothing was printed and the document is still held.",
        "Switch it on or wake it, then release it again.",
    )
    assert await say(page, f"{OFF} {safe} {what}") == [f"{german[OFF]} {german[safe]} {german[what]}"]


async def test_a_sentence_inside_another(page: Page) -> None:
    text = (
        f"Foyer (2. OG) cannot print now. {OFF} Nothing was printed and the document is still held: "
        "release it again, or at another printer."
    )
    (said,) = await say(page, text)
    assert said.startswith("Foyer (2. OG) kann jetzt nicht drucken. Der Drucker antwortet nicht:")
    assert "The printer" not in said


async def test_names_may_be_anything(page: Page) -> None:
    names = ["Dr. No", "$& $1 \\1 {name}", "a. Printed at b.", "<b>", "قلم", "x" * 250]
    assert await say(page, *(f"Printed at {name}." for name in names)) == [f"Gedruckt auf {name}." for name in names]


async def test_what_is_not_known_stays_as_it_is(page: Page) -> None:
    texts = ["", "Hello.", "No such thing is ever said. Nor is this"]
    assert await say(page, *texts) == texts


async def test_a_hostile_text_takes_no_time(page: Page) -> None:
    """Many beginnings of many templates, and no end."""
    text = ("Held as a: release it at b " * 20 + "Released by c for d " * 20)[:1_000]
    before = await page.evaluate("performance.now()")
    assert await say(page, text) == [text]
    assert await page.evaluate("performance.now()") - before < 1_000


def _fill(template: str) -> str:
    return "".join(
        literal + (f"«{name}»" if name is not None else "") for literal, name, *_ in Formatter().parse(template)
    )
