"""The ticket in the words of a backend: ``argv[4]`` and ``argv[5]``.

Without a PPD, CUPS's ipp backend hands every option to the printer through cupsEncodeOptions2 (backend/ipp.c,
new_request; cups/encode.c): types come from its own table, unknown names become ``name`` or ``boolean``
values. It does so only for PDF and images when the document comes on stdin. For anything else (PostScript,
PCL, PWG raster from a driver) the ticket has no way to travel; copies are then made by sending the document
that many times in one stream, as the socket backend does with a file, and the rest of the ticket is lost.
socket and lpd carry nothing but the document.
"""

import re
from collections.abc import Mapping

VALUE_LIMIT = 1_023
"""Octets; CUPS gathers one option's value in a buffer of HTTP_MAX_URI."""

# Ours to say (who, what, how often, when), or a way to talk past the printer's own checks.
_OURS = frozenset(
    {"attributes-charset", "attributes-natural-language", "auth-info", "compression", "copies", "document-format",
     "document-name", "document-natural-language", "ipp-attribute-fidelity", "job-authorization-uri", "job-hold-until",
     "job-id", "job-name", "job-password", "job-password-encryption", "job-priority", "job-uri", "job-uuid",
     "last-document", "limit", "my-jobs", "printer-uri", "raw", "requested-attributes", "requesting-user-name",
     "which-jobs"}
)  # fmt: skip
_OURS_PREFIXES = ("job-originating-", "notify-", "time-at-", "date-time-at-", "printer-", "job-state")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_PLAIN = re.compile(r"[A-Za-z0-9_.,:/+@-]+")
_COLLECTION = re.compile(r"\{[A-Za-z0-9_.,:=+ {}-]*\}")
# `lp -o media=A4` says it in the words of PPDs; printers know PWG 5101.1 names.
_MEDIA = {
    "A3": "iso_a3_297x420mm", "A4": "iso_a4_210x297mm", "A5": "iso_a5_148x210mm", "A6": "iso_a6_105x148mm",
    "B5": "jis_b5_182x257mm", "Letter": "na_letter_8.5x11in", "Legal": "na_legal_8.5x14in",
    "Tabloid": "na_ledger_11x17in", "Executive": "na_executive_7.25x10.5in",
}  # fmt: skip


def options_travel(scheme: str, content_type: str) -> bool:
    """Whether the ticket reaches the printer: over IPP, with a format for which the backend sends options."""
    return scheme in {"ipp", "ipps"} and (
        content_type in {"application/pdf", "application/vnd.cups-pdf"} or content_type.startswith("image/")
    )


def option_string(copies: int, options: Mapping[str, str]) -> str:
    """``argv[5]``: *options* quoted for cupsParseOptions, without those that are not the user's to choose.

    Copies travel as an option: the backend drops ``argv[4]`` when there are no other options.
    """
    words = [f"copies={copies}"] if copies > 1 else []
    for name, value in options.items():
        if name in _OURS or name.startswith(_OURS_PREFIXES) or not _NAME.fullmatch(name):
            continue
        if not value.isprintable() or len(value.encode("utf-8", "replace")) > VALUE_LIMIT:
            continue
        words.append(f"{name}={_quoted(_MEDIA.get(value, value) if name == 'media' else value)}")
    return " ".join(words)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value) or (_COLLECTION.fullmatch(value) and value.count("{") == value.count("}")):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
