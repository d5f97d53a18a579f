"""A small day-folder that grows, a running server, and sinks for warnings."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np

from calcamp.config.lookup import load_detector, load_limits
from calcamp.data import elvis
from calcamp.data.explog import format_explog_header, format_explog_row
from calcamp.data.hk import HKWriter
from calcamp.data.names import format_stamp, raw_stem
from calcamp.data.raw import raw_cards, write_raw

KEYS = elvis.hk_columns()[1:]
START = datetime(2019, 3, 12, 7, 0, 0)
LIMITS = load_limits().hk_limits()


def nominal(key):
    band = LIMITS[key].safe
    if band.type == "identity":
        return next(v for v in band.values if isinstance(v, int))
    return -120.0 if "_TEMP_" in key and key.startswith("CCD") else (band.low + band.high) / 2


class Day:
    """A day-folder under test."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.seconds = 0
        self.hk_file = HKWriter(folder / "HK_12-03-19_ROE1_01.txt")
        self.random = random.Random(1)

    def hk(self, rows=1, **changes):
        """Append readings; changes by key hold for all of them."""
        readings = []
        for _ in range(rows):
            values = {key: nominal(key) for key in KEYS} | changes
            readings.append((START + timedelta(seconds=self.seconds), values))
            self.seconds += 1
        self.hk_file.write(*readings)

    def row(self, obsid, ccd, **changes):
        time_ = START + timedelta(seconds=90 * (obsid - 17283))
        row = {}
        for name, kind in elvis.EXPLOG_TYPES.items():
            row[name] = kind(elvis.SCRIPT_DEFAULTS.get(name, {int: 0, float: 0.0, str: "x"}[kind]))
        return row | {
            "ObsID": obsid,
            "File_name": raw_stem(obsid, time_, ccd),
            "CCD": f"CCD{ccd}",
            "date": format_stamp(time_),
            "test": "BIAS01",
            "BUNIT": "ADU",
            **changes,
        }

    def expose(self, obsid, images=True, **changes):
        """An exposure: images, then rows of the EXP-LOG."""
        log = self.folder / "EXP_LOG_120319.txt"
        text = "" if log.exists() else format_explog_header() + "\r\n"
        for ccd in (1, 2, 3):
            row = self.row(obsid, ccd, **changes)
            if images:
                detector = load_detector("ccd273-mini")
                data = np.random.default_rng(obsid).normal(2300, 4, detector.ccd_shape)
                write_raw(
                    self.folder / f"{row['File_name']}.fits", data.round().astype(np.uint16), raw_cards(row)
                )
            text += format_explog_row(row) + "\r\n"
        with open(log, "a", newline="") as stream:
            stream.write(text)


def wait_for(what, seconds=60.0):
    """The first true value of `what()`; fails after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(monitor, private=False, token="t" * 24, ds9=None, host="127.0.0.1"):
    """The monitor looking and serving; gives a `Client`."""
    from calcamp.monitor import server

    port = free_port()
    app = server.make_app(monitor, token, server.allowed_hosts(host, port), private, ds9)
    web = server.serve(app, "127.0.0.1", port)
    threads = [
        threading.Thread(target=web.run, daemon=True),
        threading.Thread(target=monitor.run, daemon=True),
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: web.started)
    try:
        yield Client(port, token)
    finally:
        monitor.stop()
        web.should_exit = True
        for thread in threads:
            thread.join(15)


class Client:
    """Requests as a page makes them, or otherwise."""

    def __init__(self, port, token):
        self.port, self.token = port, token
        self.url = f"http://127.0.0.1:{port}/#token={token}"

    def request(self, method, path, body=None, headers=None, right=True):
        given = {"Host": f"127.0.0.1:{self.port}"}
        if method == "POST" and right:
            given |= {"Origin": f"http://127.0.0.1:{self.port}", "X-Calcamp-Token": self.token}
        given |= headers or {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            if method == "POST" or data:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def get(self, path, **options):
        status, body, _ = self.request("GET", path, **options)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def state(self):
        return self.get("/api/state?since=0")

    def key(self, name):
        return next((k for k in self.state().get("keys", []) if k["key"] == name), {})

    def post(self, path, body=None, **options):
        return self.request("POST", path, body or {}, **options)[0]


@contextlib.contextmanager
def webhook():
    """A loopback HTTP server that keeps what is posted: what apprise's json:// sends."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port, got
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextlib.contextmanager
def mail_server(port=None):
    """aiosmtpd; gives (port, list of (recipient, text) with the time of acceptance in ``.times``)."""
    from aiosmtpd.controller import Controller

    class Mails(list):
        def __init__(self):
            super().__init__()
            self.times = []

    got = Mails()

    class Keeper:
        async def handle_DATA(self, server, session, envelope):
            got.times.extend(time.monotonic() for _ in envelope.rcpt_tos)
            got.extend((to, envelope.content.decode()) for to in envelope.rcpt_tos)
            return "250 OK"

    controller = Controller(Keeper(), hostname="127.0.0.1", port=port or free_port())
    controller.start()
    try:
        yield controller.port, got
    finally:
        controller.stop()
