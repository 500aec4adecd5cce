"""Which Pullprint somebody runs, beside one's own."""

import re

RELEASES = ("0.1.0",)
"""Every version that was ever released, oldest first; the last is this one. ``tests/wire`` keeps what each of them
writes."""
_VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){2}")


def beside(version: str, own: str = RELEASES[-1]) -> str:
    """How *version* stands to *own*: empty when it is the same or makes no sense, else such as ``one behind``,
    ``3 behind``, ``behind`` (by how much nobody knows) or ``newer``."""
    if version == own or not _VERSION.fullmatch(version):
        return ""
    if _numbers(version) > _numbers(own):
        return "newer"
    if version not in RELEASES:
        return "behind"
    count = sum(_numbers(version) < _numbers(release) <= _numbers(own) for release in RELEASES)
    return "one behind" if count == 1 else f"{count} behind"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("."))
