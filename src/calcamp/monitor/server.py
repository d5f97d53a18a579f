"""The page of the monitor: a small web server that trusts nothing it is sent.

* ``Host`` must be one of an exact list (against DNS rebinding), ``Origin`` of every POST too, and every
  POST carries the token in a header. There is no CORS.
* Files go out from two places only: the page's own files, read into memory at start, and reports of the
  results folder, whose resolved path is checked. No path comes from a request.
* Everything from logs, FITS headers and file names leaves as JSON and is shown as text.

Bound to another address than loopback, the token is needed to look as well: it is given once in the
fragment of the address, and kept as a cookie that only this server reads.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from importlib.resources import files
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calcamp.data.files import InputError
from calcamp.monitor.acquisition import inside, report_path
from calcamp.monitor.copying import Copier
from calcamp.monitor.ds9 import Ds9
from calcamp.monitor.watch import Monitor

MAX_BODY = 4096
MAX_KEYS = 16
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Reports are pages of their own: no script at all, no way back to this server.
REPORT_POLICY = (
    "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
)
STATIC = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
    "uPlot-LICENSE.txt": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
COOKIE = "calcamp_monitor"
_USER = re.compile(r"[^\w .@-]")


def allowed_hosts(host: str, port: int, more: tuple[str, ...] = ()) -> frozenset[str]:
    """Exact values of the Host header that are served."""
    names = [*LOOPBACK]
    if host not in ("0.0.0.0", "::", "127.0.0.1", "localhost", "::1"):
        names.append(host)
    found = {f"{name}:{port}" for name in names}
    return frozenset(found | {m.lower() if ":" in m else f"{m.lower()}:{port}" for m in more})


class Guard:
    """The checks that come before everything else; pure ASGI, so that nothing slips past a router."""

    def __init__(self, app, hosts: frozenset[str], token: str, private: bool):
        self.app = app
        self.hosts = hosts
        self.token = token
        self.private = private  # the token is needed to look, too

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refusal = self.refusal(scope)
        if refusal is not None:
            code, text = refusal
            response = JSONResponse({"error": text}, status_code=code)
            await response(scope, receive, _hardened(send, PAGE_POLICY))
            return
        await self.app(scope, receive, _hardened(send, PAGE_POLICY))

    def refusal(self, scope) -> tuple[int, str] | None:
        """(status, text) when the request is not served."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = _single(headers, b"host")
        if host is None or host.lower() not in self.hosts:
            return 403, "this name of the server is not served; use the address that calcamp monitor printed"
        method = scope["method"]
        if method not in ("GET", "HEAD", "POST"):
            return 405, "this method is not served"
        if method == "POST":
            origin = _single(headers, b"origin")
            if origin is None or origin.lower() not in {f"http://{h}" for h in self.hosts}:
                return 403, "requests from other pages are refused"
            if not self.right(_single(headers, b"x-calcamp-token")):
                return 401, "the token is missing or wrong; open the address that calcamp monitor printed"
        elif (
            self.private
            and scope["path"].startswith(("/api/", "/ql/", "/report/"))
            and not self.right_cookie(_single(headers, b"cookie"))
        ):
            return 401, "the token is needed; open the address that calcamp monitor printed"
        return None

    def right(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def right_cookie(self, cookies: str | None) -> bool:
        for part in (cookies or "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE and hmac.compare_digest(value.encode(), cookie_of(self.token).encode()):
                return True
        return False


def cookie_of(token: str) -> str:
    """Value of the cookie: proves the token, and is not the token."""
    return hashlib.sha256(b"calcamp monitor cookie " + token.encode()).hexdigest()


def _single(headers: dict, name: bytes) -> str | None:
    """A header that is there exactly once, as text."""
    values = headers.get(name, [])
    if len(values) != 1:
        return None
    try:
        return values[0].decode("ascii")
    except UnicodeDecodeError:
        return None


def _hardened(send, policy: str):
    """`send` that adds the headers every answer carries."""

    async def wrapped(message):
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            names = {name.lower() for name, _ in headers}
            for name, value in (
                (b"content-security-policy", policy.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
                (b"cross-origin-resource-policy", b"same-origin"),
                (b"cross-origin-opener-policy", b"same-origin"),
                (b"cache-control", b"no-store"),
            ):
                if name not in names:
                    headers.append((name, value))
            message = {**message, "headers": headers}
        await send(message)

    return wrapped


class Refused(Exception):
    """A request that is wrong; the text goes back to the page."""

    def __init__(self, code: int, text: str):
        super().__init__(text)
        self.code = code


def make_app(monitor: Monitor, token: str, hosts: frozenset[str], private: bool = False, ds9=None) -> Guard:
    """The application: a `Guard` around the routes."""
    folder = files("calcamp.monitor") / "static"
    static = {name: (folder / name).read_bytes() for name in STATIC}
    talker = ds9 or Ds9

    def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in static:
            raise Refused(404, "no such file")
        return Response(static[name], media_type=STATIC[name])

    async def state(request: Request) -> Response:
        since = _whole(request, "since", 0)
        number, body = monitor.snapshot
        if number == since:
            body = b'{"sequence":%d}' % number
        return Response(body, media_type="application/json")

    async def history(request: Request) -> Response:
        keys = request.query_params.get("keys", "").split(",")[:MAX_KEYS]
        span, after = _real(request, "span"), _real(request, "after")
        points = min(max(_whole(request, "points", 800), 50), 4000)
        return _json(await run_in_threadpool(monitor.history, keys, span, after, points))

    async def explog(request: Request) -> Response:
        return _json(await run_in_threadpool(monitor.explog.table, max(0, _whole(request, "after", 0))))

    async def quicklook(request: Request) -> Response:
        obsid = request.path_params["obsid"]
        found = {}
        for ccd in sorted(monitor.images.names.get(obsid, {})):
            item = await run_in_threadpool(monitor.quicklook.get, obsid, ccd)
            found[str(ccd)] = {k: v for k, v in item.items() if k not in ("zscale", "equalised")}
            found[str(ccd)]["picture"] = "zscale" in item
        return _json({"obsid": obsid, "ccds": found, "info": monitor.explog.about(obsid)})

    async def picture(request: Request) -> Response:
        stretch = request.query_params.get("stretch", "zscale")
        if stretch not in ("zscale", "equalised"):
            raise Refused(400, "stretch is zscale or equalised")
        item = await run_in_threadpool(
            monitor.quicklook.get, request.path_params["obsid"], request.path_params["ccd"]
        )
        if stretch not in item:
            raise Refused(404, item["error"])
        return Response(item[stretch], media_type="image/png", headers={"Cache-Control": "no-cache"})

    async def report(request: Request) -> Response:
        root = monitor.session.results_root
        path = None
        if root is not None:
            path = report_path(root, request.path_params["test"], request.path_params["kind"])
        if path is None or request.path_params["kind"] not in ("html", "pdf"):
            raise Refused(404, "no such report")
        return await _file(path, request.path_params["kind"])

    async def figure(request: Request) -> Response:
        root, test, name = (
            monitor.session.results_root,
            request.path_params["test"],
            request.path_params["name"],
        )
        known = {v["test"] for v in monitor.session.verdicts}
        if root is None or test not in known or not re.fullmatch(r"[A-Za-z0-9_.-]{1,120}\.png", name):
            raise Refused(404, "no such figure")
        path = inside(root, root / test / "figures" / name)
        if path is None:
            raise Refused(404, "no such figure")
        return await _file(path, "png")

    async def login(request: Request) -> Response:
        response = JSONResponse({"ok": True})
        response.set_cookie(COOKIE, cookie_of(token), httponly=True, samesite="strict", max_age=7 * 86400)
        return response

    async def flag(request: Request) -> Response:
        body = await _body(request)
        action, key = request.path_params["action"], request.path_params["key"]
        if action not in ("lower", "acknowledge", "mute", "unmute"):
            raise Refused(404, "no such action")
        until = None
        if action == "mute" and body.get("hours") is not None:
            hours = body["hours"]
            if isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 < hours <= 24 * 30:
                raise Refused(400, "hours is a number above 0, at most 720")
            until = monitor.clock() + 3600 * hours
        done = await run_in_threadpool(monitor.command, action, key, _user(body), until)
        if not done:
            raise Refused(404, "no such key")
        return _json({"ok": True})

    async def lower_all(request: Request) -> Response:
        body = await _body(request)
        await run_in_threadpool(monitor.command, "lower", None, _user(body), None, body.get("unmute") is True)
        return _json({"ok": True})

    async def to_ds9(request: Request) -> Response:
        obsid = request.path_params["obsid"]
        await _body(request)

        def send() -> int:
            paths = [(ccd, monitor.images.path(obsid, ccd)) for ccd in (1, 2, 3)]
            paths = [(ccd, path) for ccd, path in paths if path is not None and not path.is_symlink()]
            if not paths:
                raise InputError(f"no image of OBSID {obsid}")
            program = talker()
            return program.show(program.resolve(monitor.ds9), paths, tile=True)

        try:
            count = await run_in_threadpool(send)
        except InputError as error:
            raise Refused(409, str(error)) from error
        monitor.log.write("ds9", f"OBSID {obsid} sent to DS9 ({count} images)")
        return _json({"ok": True, "images": count})

    async def copy_now(request: Request) -> Response:
        await _body(request)
        for copier in monitor.copiers:
            Copier.now(copier)
        return _json({"ok": True})

    async def trial(request: Request) -> Response:
        await _body(request)
        if not monitor.channels:
            raise Refused(409, "no channel of warnings is configured")
        await run_in_threadpool(monitor.send_trial)
        return _json({"ok": True})

    get, post = ["GET"], ["POST"]
    app = Starlette(
        routes=[
            Route("/", page, methods=get),
            Route("/static/{name}", page, methods=get),
            Route("/api/state", state, methods=get),
            Route("/api/history", history, methods=get),
            Route("/api/explog", explog, methods=get),
            Route("/api/quicklook/{obsid:int}", quicklook, methods=get),
            Route("/ql/{obsid:int}/{ccd:int}.png", picture, methods=get),
            Route("/report/{test}/{test2}_report.{kind}", report, methods=get),
            Route("/report/{test}/figures/{name}", figure, methods=get),
            Route("/api/login", login, methods=post),
            Route("/api/flags/lower-all", lower_all, methods=post),
            Route("/api/flags/{key}/{action}", flag, methods=post),
            Route("/api/ds9/{obsid:int}", to_ds9, methods=post),
            Route("/api/copy-now", copy_now, methods=post),
            Route("/api/test-warning", trial, methods=post),
        ],
        exception_handlers={Refused: _refused, Exception: _failed},
    )
    return Guard(app, hosts, token, private)


async def _refused(request, error: Refused) -> Response:
    return JSONResponse({"error": str(error)}, status_code=error.code)


async def _failed(request, error: Exception) -> Response:
    return JSONResponse({"error": f"fault in the server ({type(error).__name__})"}, status_code=500)


async def _file(path: Path, kind: str) -> Response:
    types = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "png": "image/png"}
    try:
        content = await run_in_threadpool(path.read_bytes)
    except OSError as error:
        raise Refused(404, "the file is gone") from error
    headers = {} if kind == "pdf" else {"Content-Security-Policy": REPORT_POLICY}
    return Response(content, media_type=types[kind], headers=headers)


def _json(data) -> Response:
    return Response(
        json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")),
        media_type="application/json",
    )


async def _body(request: Request) -> dict:
    """A JSON object of at most `MAX_BODY` bytes; empty for no body."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise Refused(413, "the request is too long")
    if not data:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "the request is not JSON") from error
    if not isinstance(found, dict):
        raise Refused(400, "the request is not a JSON object")
    return found


def _user(body: dict) -> str:
    """Name that the page gives for the log."""
    name = body.get("user")
    return (_USER.sub("", name)[:40].strip() if isinstance(name, str) else "") or "page"


def _whole(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d{1,15}", text, re.ASCII):
        raise Refused(400, f"{name} is a whole number")
    return int(text)


def _real(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"-?\d{1,15}(\.\d{1,9})?", text, re.ASCII):
        raise Refused(400, f"{name} is a number")
    return float(text)


def load_token(path: Path | None) -> str:
    """The token kept in a file of its owner's only; a new one when there is none."""
    import os

    if path is None:
        return secrets.token_urlsafe(24)
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(handle, encoding="ascii", errors="replace") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            token = stream.read(200).strip()
        if mode & 0o077:
            raise InputError("others can read the token", file=path, remedy=f"chmod 600 {path.name}")
        if re.fullmatch(r"[A-Za-z0-9_-]{16,100}", token):
            return token
        raise InputError("holds no token", file=path, remedy="Remove the file; a new one is made")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"the token cannot be read ({error.strerror})", file=path) from error
    token = secrets.token_urlsafe(24)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as stream:
        stream.write(token + "\n")
    return token


def serve(app, host: str, port: int):
    """A uvicorn server; ``run()`` returns when it is told to end."""
    import uvicorn

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="h11",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=20,
        limit_concurrency=200,
        h11_max_incomplete_event_size=32 * 1024,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)
