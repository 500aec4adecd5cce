"""The real libcups, asked how it reads an option string."""

import ctypes
import ctypes.util


class _Option(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


_LIBRARY = ctypes.CDLL(ctypes.util.find_library("cups") or "libcups.so.2")
_LIBRARY.cupsParseOptions.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.POINTER(_Option)))
_LIBRARY.cupsFreeOptions.argtypes = (ctypes.c_int, ctypes.POINTER(_Option))


def parse_options(text: str) -> dict[str, str]:
    """Values by name in lower case (of ASCII), as cupsParseOptions(3) reads *text*; *text* has no NUL."""
    options = ctypes.POINTER(_Option)()
    count = _LIBRARY.cupsParseOptions(text.encode(), 0, ctypes.byref(options))
    try:
        return {options[i].name.lower().decode(): options[i].value.decode() for i in range(count)}
    finally:
        _LIBRARY.cupsFreeOptions(count, options)
