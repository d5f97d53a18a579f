"""The server: who may look, who may act, what goes out, and what hostile input does."""

import json
import os
import random
import string
from urllib.parse import quote

import pytest
from tests.monitor.monitor_support import LIMITS, Day, running, wait_for

from calcamp.monitor.server import allowed_hosts, load_token
from calcamp.monitor.settings import MonitorFile, Periods
from calcamp.monitor.watch import Monitor

FAST = MonitorFile(periods=Periods(house_keeping=0.2, log=0.2, images=0.2, results=0.3))
SECRET = "canary-of-a-private-file"


@pytest.fixture
def world(tmp_path):
    """A day-folder, results with a report, and private files that nobody may get."""
    day = Day(tmp_path / "12_Mar_19")
    day.hk(5)
    day.expose(17283)
    (tmp_path / "private.txt").write_text(SECRET)
    (tmp_path / "private.png").write_text(SECRET)
    root = tmp_path / "results" / "D11"
    test = root / "BIAS01"
    (test / "figures").mkdir(parents=True)
    verdict = {"test": "BIAS01", "verdict": "pass", "status": "complete", "flags": [{"name": "<b>X</b>"}]}
    (test / "verdict.json").write_text(json.dumps(verdict))
    (test / "BIAS01_report.html").write_text("<script>1</script>")
    (test / "BIAS01_report.pdf").symlink_to(tmp_path / "private.txt")
    (test / "figures" / "a.png").write_bytes(b"png")
    (test / "figures" / "leak.png").symlink_to(tmp_path / "private.png")
    (day.folder / "EUC_17284_120319D071130T_ROE1_CCD1.fits").symlink_to(tmp_path / "private.txt")
    monitor = Monitor(day.folder, FAST, LIMITS, state_dir=tmp_path / "state", results=root)
    return day, monitor


def test_look_act_and_refuse(world):
    day, monitor = world
    with running(monitor) as client:
        wait_for(lambda: len(client.state().get("keys", [])) == 82 and client.state()["session"]["verdicts"])
        status, body, headers = client.request("GET", "/")
        assert status == 200
        assert b"<script src=" in body
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert client.token.encode() not in body, "the page holds no secret"

        # reports and figures: inside the results only, and as pages that can do nothing
        status, body, headers = client.request("GET", "/report/BIAS01/BIAS01_report.html")
        assert (status, body) == (200, b"<script>1</script>")
        assert headers["content-security-policy"].startswith("sandbox; default-src 'none'")
        assert client.request("GET", "/report/BIAS01/figures/a.png")[0] == 200
        for path in (
            "/report/BIAS01/BIAS01_report.pdf",
            "/report/BIAS01/figures/leak.png",
            "/report/BIAS01/figures/..%2fverdict.json",
            "/report/..%2fD11%2fBIAS01/x_report.html",
            "/report/../../private.txt",
            "/static/../server.py",
            "/static/..%2fserver.py",
            "/ql/17284/1.png",
            "/ql/17283/4.png",
            "/api/flags/CCD1_TEMP_T/lower",
        ):
            status, body, _ = client.request("GET", path)
            assert status in (404, 405), path
            assert SECRET.encode() not in body
        assert client.request("GET", "/ql/17283/1.png")[1][:4] == b"\x89PNG"
        look = client.get("/api/quicklook/17283")["ccds"]["1"]["quadrants"]
        assert [q["quadrant"] for q in look] == list("EFGH")
        assert abs(look[0]["offset"] - 2300) < 2
        assert abs(look[0]["noise"] - 4.0) < 0.2
        assert client.get("/api/explog?after=0")["rows"][0][0] == 17283

        # acting
        day.hk(1, CCD1_TEMP_T=40.0)
        wait_for(lambda: client.key("CCD1_TEMP_T").get("raised"))
        assert client.post("/api/flags/CCD1_TEMP_T/acknowledge", {"user": "Ann <i>"}) == 200
        assert client.key("CCD1_TEMP_T")["by"] == "Ann i"
        assert client.post("/api/flags/CCD1_TEMP_T/mute", {"hours": 8}) == 200
        assert client.key("CCD1_TEMP_T")["state"] == "muted"
        for body in ({"hours": -1}, {"hours": "8"}, {"hours": True}, {"hours": 1e9}):
            assert client.post("/api/flags/CCD1_TEMP_T/mute", body) == 400
        assert client.post("/api/flags/NO_KEY/lower") == 404
        assert client.post("/api/flags/CCD1_TEMP_T/explode") == 404
        assert client.request("POST", "/api/flags/lower-all", b"x" * 10000)[0] == 413
        assert client.request("POST", "/api/flags/lower-all", b"[1]")[0] == 400


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": None},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1:{port}.evil.example"},
    {"Origin": "https://127.0.0.1:{port}"},
    {"Origin": "http://127.0.0.1:1{port}"},
    {"Host": "evil.example:{port}"},
    {"Host": "127.0.0.1.evil.example:{port}"},
    {"Host": "127.0.0.1"},
    {"Host": ""},
    {"X-Calcamp-Token": None},
    {"X-Calcamp-Token": ""},
    {"X-Calcamp-Token": "t" * 23},
    {"X-Calcamp-Token": "t" * 25},
]


def test_forty_requests_of_other_pages_change_nothing(world):
    day, monitor = world
    day.hk(1)
    with running(monitor) as client:
        wait_for(lambda: client.key("CCD1_TEMP_T"))
        day.hk(1, CCD1_TEMP_T=40.0)
        wait_for(lambda: client.key("CCD1_TEMP_T").get("raised"))
        before = client.key("CCD1_TEMP_T")
        count = 0
        for headers in FOREIGN:
            filled = {k: v and v.replace("{port}", str(client.port)) for k, v in headers.items()}
            for path in (
                "/api/flags/CCD1_TEMP_T/lower",
                "/api/flags/CCD1_TEMP_T/mute",
                "/api/flags/lower-all",
            ):
                assert client.post(path, headers=filled) in (400, 401, 403), (headers, path)
                count += 1
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            assert client.request(method, "/api/flags/lower-all")[0] in (400, 403, 405)
        assert count >= 40
        assert client.key("CCD1_TEMP_T") == before
        status, _, headers = client.request("GET", "/api/state", headers={"Origin": "http://evil.example"})
        assert "access-control-allow-origin" not in headers
        status, _, _ = client.request("GET", "/api/state", headers={"Host": "rebound.example"})
        assert status == 403, "DNS rebinding"


def test_elsewhere_the_token_is_needed_to_look(world):
    _, monitor = world
    with running(monitor, private=True) as client:
        for path in ("/api/state", "/api/explog", "/ql/17283/1.png", "/report/BIAS01/BIAS01_report.html"):
            assert client.request("GET", path)[0] == 401
        status, _, headers = client.request("POST", "/api/login", {})
        assert status == 200
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert client.token not in cookie
        pair = cookie.split(";")[0]
        assert client.request("GET", "/api/state", headers={"Cookie": pair})[0] == 200
        assert client.request("GET", "/api/state", headers={"Cookie": "calcamp_monitor=x"})[0] == 401
        assert client.request("POST", "/api/flags/lower-all", {}, {"Cookie": pair}, right=False)[0] == 403


def test_token_file_is_private(tmp_path):
    path = tmp_path / "monitor.token"
    token = load_token(path)
    assert load_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(Exception, match="others can read"):
        load_token(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match=r"token|exists|cannot"):
        load_token(path)
    assert not (tmp_path / "elsewhere").exists()
    assert "lab:8321" in allowed_hosts("0.0.0.0", 8321, ("LAB",))


def test_ds9_gets_the_three_images(world):
    _, monitor = world
    sent = []

    class Fake:
        def resolve(self, target):
            return target

        def show(self, instance, files, tile=False):
            sent.extend(files)
            return len(sent)

    with running(monitor, ds9=Fake) as client:
        wait_for(lambda: client.state().get("image", {}).get("last") == 17283)
        assert client.post("/api/ds9/17283") == 200
        assert [(frame, path.name[-9:]) for frame, path in sent] == [(n, f"CCD{n}.fits") for n in (1, 2, 3)]
        assert client.post("/api/ds9/17284") == 409, "a link that leads out is not sent"
        assert client.post("/api/ds9/1;reboot") in (404, 405)


def hostile_requests(count, seed):
    """Mutated paths, headers and bodies."""
    rng = random.Random(seed)
    paths = [
        "/api/state?since=0",
        "/api/history?keys=CCD1_TEMP_T&span=3600&points=100",
        "/api/explog?after=0",
        "/api/quicklook/17283",
        "/ql/17283/1.png",
        "/report/BIAS01/BIAS01_report.html",
        "/report/BIAS01/figures/a.png",
        "/static/app.js",
        "/api/flags/CCD1_TEMP_T/mute",
        "/api/ds9/1",
    ]
    pieces = [
        "../",
        "..%2f",
        "%00",
        "%2e%2e/",
        "\\",
        "<script>",
        "'",
        "%ff",
        "9" * 400,
        "-1",
        "nan",
        "1e999",
        "//",
        ";",
        "\u0660",
        "{}",
    ]
    for _ in range(count):
        path = rng.choice(paths)
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(1, len(path))
            piece = (
                rng.choice(pieces)
                if rng.random() < 0.6
                else "".join(rng.choices(string.printable[:94], k=rng.randint(1, 8)))
            )
            path = path[:at] + piece + path[at + rng.randint(0, 3) :]
        path = quote(path, safe="/?=&%;:@!$'()*+,.-_~{}[]<>|^`\"\\")
        body = None
        if rng.random() < 0.4:
            body = rng.choice(
                [
                    b"{",
                    b"[]",
                    b'{"hours":1e400}',
                    b'{"user":1}',
                    b'{"hours":[]}',
                    b"\xff\xfe",
                    b'{"hours":' + b"[" * 900,
                    b"0" * 500,
                ]
            )
        yield ("POST" if body is not None else "GET"), path, body


def run_requests(world, count):
    _, monitor = world
    with running(monitor) as client:
        wait_for(lambda: client.key("CCD1_TEMP_T"))
        for method, path, body in hostile_requests(count, 7):
            try:
                status, answer, _ = client.request(method, path, body)
            except (UnicodeEncodeError, ValueError):
                continue  # the client itself refuses to send this
            assert status < 500, (method, path, body, answer)
            assert SECRET.encode() not in answer
        assert client.state()["keys"], "it still answers"
        return not [e for e in client.state()["events"] if e["event"] == "fault"]


def test_hostile_requests(world):
    assert run_requests(world, 800)


@pytest.mark.full
def test_many_hostile_requests(world):
    assert run_requests(world, 5000)


def mutated(text: bytes, rng):
    data = bytearray(text)
    for _ in range(rng.randint(1, 12)):
        kind, at = rng.randint(0, 5), rng.randrange(max(1, len(data)))
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + rng.randint(1, 200)]
        elif kind == 2:
            data[at:at] = rng.choice(
                [
                    b"\t",
                    b"\r\n",
                    b"\0",
                    b"<script>alert(1)</script>",
                    b"1e999",
                    b"nan",
                    b"\xff",
                    b"../../x",
                    b"9" * 50,
                ]
            )
        elif kind == 3:
            data[at:at] = data[: rng.randint(1, 300)]
        elif kind == 4:
            data = data[:at]
        else:
            data[at:at] = os.urandom(rng.randint(1, 60))
    return bytes(data)


def run_files(tmp_path, count):
    """The monitor over mutated house-keeping and logs that replace each other: no fault, state always JSON."""
    day = Day(tmp_path / "12_Mar_19")
    day.hk(4)
    day.expose(17283, images=False)
    hk, log = day.hk_file.path, day.folder / "EXP_LOG_120319.txt"
    sound, rng = (hk.read_bytes(), log.read_bytes()), random.Random(3)
    faults = 0
    for k in range(count):
        hk.write_bytes(mutated(sound[0], rng))
        log.write_bytes(mutated(sound[1], rng))
        if k % 25 == 0:
            monitor = Monitor(day.folder, FAST, LIMITS)
        monitor._due.clear()
        monitor.look()
        json.loads(monitor.snapshot[1])
        json.dumps(monitor.explog.table(), allow_nan=False)
        keys = monitor.hk.history.keys[:3]
        json.dumps(monitor.history(keys, 3600.0, None, 100), allow_nan=False)
        faults += sum(e["event"] == "fault" for e in monitor.log.recent)
    return faults


def test_mutated_files(tmp_path):
    assert run_files(tmp_path, 300) == 0


@pytest.mark.full
def test_many_mutated_files(tmp_path):
    assert run_files(tmp_path, 5000) == 0
