"""Every sentence has its German, and the page finds it again."""

import re
from collections import Counter
from pathlib import Path

import polib
from tests.language.sentences import SOURCE, sentences

CATALOGUE = SOURCE / "web" / "locale" / "de.sentences.po"
_FIELD = re.compile(r"\{(\w*)\}")


def catalogue(path: Path = CATALOGUE) -> dict[str, str]:
    return {entry.msgid: entry.msgstr for entry in polib.pofile(str(path))}


def test_the_source_is_read() -> None:
    found = sentences()
    assert found["Printed at {name}."] == "node/release.py"
    assert "The printer is out of paper." in found and len(found) > 150


def test_every_sentence_has_its_german_and_no_german_is_left_over() -> None:
    found, german = set(sentences()), set(catalogue())
    assert found - german == set(), "write them into web/locale/de.sentences.po"
    assert german - found == set(), "nothing says these any more"


def test_what_is_filled_in_is_filled_in_in_german_too() -> None:
    for english, german in catalogue().items():
        assert german, english
        assert Counter(_FIELD.findall(german)) == Counter(_FIELD.findall(english)), english


def test_no_sentence_is_little_but_what_is_filled_in() -> None:
    """The page could not tell it from any other."""
    for english in catalogue():
        assert len(_FIELD.sub("", english)) >= 8, english
