"""The page's files: read, translated and compressed once at start, served from memory, under a policy that lets in
nothing else.

``index.html``, ``sw.js`` and the manifest speak of ``/static/NAME``; served, that is ``/static/~VERSION/NAME``, where
a browser keeps it for ever: a new version has other addresses, and modules of two versions never meet.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polib
from aiohttp import web

from pullprint.cloud.gate import Access, NotFoundHere, access

FOLDER = Path(__file__).parent.parent / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
PERMISSIONS = "camera=(self), microphone=(), geolocation=()"
VIEWS = ("/", "/p/{id}", "/login", "/claim", "/history", "/account", "/share", "/site", "/welcome")
"""The addresses that the page itself tells apart."""
FILE_LIMIT = 4 << 20
SMALL = 1_000
"""Bytes that are not worth compressing."""
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
_PACKED = frozenset({".png", ".woff2"})
_REFERRING = frozenset({".html", ".webmanifest"})
_IMPORT = re.compile(rb'@import "([a-z]+\.css)";\n')
_KEEP = "public, max-age=31536000, immutable"
# Asked for again each time, answered with 304 as long as it is the same: a new version shows at once.
_ASK = "no-cache"

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class File:
    """What is answered for one address."""

    data: bytes
    squeezed: bytes
    """The same with gzip; empty where that is not worth it."""
    kind: str
    tag: str


def add(app: web.Application, folder: Path = FOLDER) -> None:
    """The views, ``/static/{name}`` and ``/sw.js``; a folder that is empty serves nothing."""
    static = dict(_static(folder))
    version = _digest(*static.values())[:12]
    prefix = b"/static/~%s/" % version.encode()
    files = {name: _file(name, data, prefix) for name, data in static.items()}
    root = {
        name: _file(name, data, prefix)
        for name in ("index.html", "sw.js")
        if (data := _read(folder / name)) is not None
    }
    for view in VIEWS:
        app.router.add_get(view, _server(lambda _: (root.get("index.html"), _ASK)))
    app.router.add_get("/sw.js", _server(lambda _: (root.get("sw.js"), _ASK)))
    app.router.add_get("/static/{name:.+}", _server(lambda request: _find(request, files, f"~{version}/")))


def catalogue(path: Path) -> bytes:
    """A gettext catalogue as the page reads it: ``{text: translation or [one, other]}``."""
    entries: dict[str, str | list[str]] = {}
    for entry in polib.pofile(str(path)):
        if entry.translated() and not entry.obsolete:
            plural = [entry.msgstr_plural[n] for n in sorted(entry.msgstr_plural)]
            entries[entry.msgid] = plural or entry.msgstr
    return json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()


def _static(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted((folder / "static").rglob("*")):
        data = _read(path) if path.suffix in _TYPES else None
        if data is not None:
            data = _with_imports(path, data) if path.suffix == ".css" else data
            yield path.relative_to(folder / "static").as_posix(), data
    for path in sorted((folder / "locale").glob("*.po")):
        yield f"{path.stem}.json", catalogue(path)


def _with_imports(path: Path, data: bytes) -> bytes:
    """A style sheet with those that it imports: one request instead of two, of which the second would begin late."""
    return _IMPORT.sub(lambda found: _read(path.parent / found[1].decode()) or b"", data)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() and path.stat().st_size <= FILE_LIMIT else None


def _file(name: str, data: bytes, prefix: bytes) -> File:
    kind = Path(name).suffix
    if kind in _REFERRING or name == "sw.js":
        data = data.replace(b"/static/", prefix)
    squeezed = b"" if kind in _PACKED or len(data) < SMALL else gzip.compress(data, mtime=0)
    return File(data, squeezed, _TYPES[kind], f'W/"{_digest(data)}"')


def _digest(*pieces: bytes) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()[:32]


def _find(request: web.Request, files: dict[str, File], version: str) -> tuple[File | None, str]:
    name = request.match_info["name"]
    if name.startswith(version):
        return files.get(name.removeprefix(version)), _KEEP
    return files.get(name), _ASK


def _server(find: Callable[[web.Request], tuple[File | None, str]]) -> Serve:
    @access(Access.ANYONE)
    async def serve(request: web.Request) -> web.StreamResponse:
        file, cache = find(request)
        if file is None:
            raise NotFoundHere
        headers = {
            "Cache-Control": cache,
            "ETag": file.tag,
            "Vary": "Accept-Encoding",
            "Content-Security-Policy": POLICY,
            "Permissions-Policy": PERMISSIONS,
        }
        if file.tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        data = file.data
        if file.squeezed and "gzip" in request.headers.get("Accept-Encoding", ""):
            data = file.squeezed
            headers["Content-Encoding"] = "gzip"
        charset = "utf-8" if file.kind.startswith("text/") else None
        return web.Response(body=data, content_type=file.kind, charset=charset, headers=headers)

    return serve
