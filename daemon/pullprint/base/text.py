"""Text from outside, made safe to show, to log and to put on one line."""

import unicodedata

# Bidirectional overrides and isolates can make a title read as something else (Unicode TR 36).
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str, limit: int) -> str:
    """*text* on one line of at most *limit* characters: what cannot be shown becomes U+FFFD."""
    cleaned = "".join(
        " "
        if char in "\t\n\r"
        else "\ufffd"
        if char in _BIDI or unicodedata.category(char) in _UNSAFE_CATEGORIES
        else char
        for char in text[: limit + 1]
    )
    return cleaned if len(cleaned) <= limit else cleaned[: limit - 1] + "…"
