"""What a browser's User-Agent header says, in a few words for people."""

PROGRAM = "A program"
_LIMIT = 512
# Each browser also names those that it wants to be taken for, so the first that fits is the right one.
_BROWSERS = (
    (("Edg/", "EdgA/", "EdgiOS/"), "Edge"),
    (("OPR/", "OPT/"), "Opera"),
    (("SamsungBrowser/",), "Samsung Internet"),
    (("Firefox/", "FxiOS/"), "Firefox"),
    (("Chrome/", "CriOS/", "Chromium/"), "Chrome"),
    (("Safari/",), "Safari"),
)
_SYSTEMS = (
    (("iPhone",), "iPhone"),
    (("iPad",), "iPad"),
    (("Android",), "Android"),
    (("CrOS",), "ChromeOS"),
    (("Windows",), "Windows"),
    (("Macintosh",), "Mac"),
    (("Linux",), "Linux"),
)


def describe(header: str) -> str:
    """Such as «Firefox on Android». Words of ours only: nothing of the header itself is ever shown."""
    text = header[:_LIMIT]
    if not text.startswith("Mozilla/"):
        return PROGRAM
    browser = _first(_BROWSERS, text) or "A browser"
    system = _first(_SYSTEMS, text)
    return f"{browser} on {system}" if system else browser


def _first(known: tuple[tuple[tuple[str, ...], str], ...], text: str) -> str:
    return next((name for marks, name in known if any(mark in text for mark in marks)), "")
