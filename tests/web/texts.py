"""The texts of the page, found in its source: what a catalogue has to translate.

``python -m tests.web.texts`` writes those that ``locale/de.po`` lacks as entries to fill in.
"""

import json
import re
from pathlib import Path

import polib

from pullprint.cloud.page import FOLDER

_TEXT = r'"((?:[^"\\]|\\.)*)"'
_ONE = re.compile(rf"(?<![\w.])_\(\s*{_TEXT}")
_MANY = re.compile(rf"\bngettext\(\s*{_TEXT},\s*{_TEXT}")
_HTML = re.compile(r"data-i18n[^>]*>([^<]+)<")
_LOOSE = re.compile(r"(?<![\w.])(?:_|ngettext)\(\s*(?!\")")
"""A call whose text this module cannot read."""
CATALOGUE = FOLDER / "locale" / "de.po"


def sources() -> list[Path]:
    """The page's code."""
    return [FOLDER / "index.html", FOLDER / "sw.js", *sorted((FOLDER / "static").rglob("*.js"))]


def texts() -> dict[str, str]:
    """Each text, with its plural or an empty one."""
    found: dict[str, str] = {}
    for path in sources():
        code = path.read_text()
        if path.suffix == ".html":
            found |= dict.fromkeys((text.strip() for text in _HTML.findall(code)), "")
        else:
            found |= {_unquote(text): "" for text in _ONE.findall(code)}
            found |= {_unquote(one): _unquote(many) for one, many in _MANY.findall(code)}
    return found


def unreadable() -> list[str]:
    """Calls whose text is not a literal."""
    return [
        f"{path.name}: {match.group()}"
        for path in sources()
        for match in _LOOSE.finditer(path.read_text())
        if path.name != "i18n.js"
    ]


def _unquote(text: str) -> str:
    return str(json.loads(f'"{text}"'))


def main() -> None:
    """Print what is missing."""
    known = {entry.msgid for entry in polib.pofile(str(CATALOGUE))} if CATALOGUE.exists() else set()
    for one, many in texts().items():
        if one not in known:
            plural = {"msgid_plural": many, "msgstr_plural": {0: "", 1: ""}} if many else {}
            print(polib.POEntry(msgid=one, **plural))


if __name__ == "__main__":
    main()
