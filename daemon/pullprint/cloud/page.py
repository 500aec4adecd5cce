"""The page's files: read once at start, served from memory, under a policy that lets in nothing else."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from pullprint.cloud.gate import Access, NotFoundHere, access

FOLDER = Path(__file__).parent.parent / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
FILE_LIMIT = 4 << 20
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

Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]


def add(app: web.Application, folder: Path = FOLDER) -> None:
    """``/`` and ``/static/{name}``; a folder that is empty serves nothing."""
    files = {path.name: path for path in sorted((folder / "static").glob("*")) if path.suffix in _TYPES}
    app.router.add_get("/", _server({"": folder / "index.html"}))
    app.router.add_get("/static/{name}", _server(files))


def _server(paths: dict[str, Path]) -> Serve:
    files = {
        name: (path.read_bytes(), _TYPES[path.suffix])
        for name, path in paths.items()
        if path.is_file() and path.stat().st_size <= FILE_LIMIT
    }
    tags = {name: f'"{hashlib.sha256(data).hexdigest()[:32]}"' for name, (data, _) in files.items()}

    @access(Access.ANYONE)
    async def serve(request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("name", "")
        if name not in files:
            raise NotFoundHere
        data, kind = files[name]
        # Asked for again each time, answered with 304 as long as it is the same: a new version shows at once.
        headers = {"Cache-Control": "no-cache", "ETag": tags[name], "Content-Security-Policy": POLICY}
        if tags[name] in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        charset = "utf-8" if kind.startswith("text/") else None
        return web.Response(body=data, content_type=kind, charset=charset, headers=headers)

    return serve
