"""The page's source: no inline code, no markup from text, and every text in German."""

import re

import polib
from tests.web.texts import CATALOGUE, sources, texts, unreadable

from pullprint.cloud.page import FOLDER, POLICY


def test_no_inline_code_and_no_markup_from_text() -> None:
    page = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\bsrc=)|https?://", page)
    for path in sources():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setHTML", path.read_text()
        ), path.name
    assert "unsafe" not in POLICY


def test_every_text_has_a_german_one_and_none_is_left_over() -> None:
    assert unreadable() == []
    wanted, entries = texts(), {entry.msgid: entry for entry in polib.pofile(str(CATALOGUE)) if not entry.obsolete}
    assert len(wanted) > 100
    assert sorted(wanted.keys() - entries.keys()) == []
    assert sorted(entries.keys() - wanted.keys()) == []
    names = re.compile(r"\{\w+\}")
    for text, entry in entries.items():
        assert entry.translated() and not entry.fuzzy, text
        assert (entry.msgid_plural or "") == wanted[text], text
        for translation in entry.msgstr_plural.values() if entry.msgid_plural else [entry.msgstr]:
            assert set(names.findall(translation)) == set(names.findall(entry.msgid_plural or text)), text
    assert "data-i18n" in (FOLDER / "index.html").read_text()
