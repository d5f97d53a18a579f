"""What any answer carries, what the page may hold, what an error tells; and that the table of docs/security.md is shown."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.monitor.monitor_support import LIMITS, Day, free_port, running, wait_for

from calcamp.monitor import server
from calcamp.monitor.log import EventLog
from calcamp.monitor.settings import Channel, MonitorFile, Periods
from calcamp.monitor.watch import Monitor

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "calcamp" / "monitor"
FAST = MonitorFile(periods=Periods(house_keeping=0.2, log=0.2, images=0.2, results=0.3))
CANARY = "canary-password"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
READ_ONLY = (
    "/",
    "/api/state",
    "/api/history?keys=CCD1_TEMP_T",
    "/api/explog",
    "/api/quicklook/17283",
    "/static/app.js",
)


@pytest.fixture
def monitor(tmp_path):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(3)
    day.hk(1, CCD1_TEMP_T=-140.0)
    day.expose(17283)
    url = f"mailto://user:{CANARY}@127.0.0.1:9/?from=a@example.org&to=b@example.org&mode=insecure&smtp=127.0.0.1"
    channels = [Channel(name="mail", kind="email", url=url)]
    log = EventLog(tmp_path / "m.log")
    return Monitor(day.folder, FAST, LIMITS, channels, state_dir=tmp_path / "state", log=log)


def test_every_answer_carries_the_headers(monitor):
    with running(monitor) as client:
        wait_for(lambda: client.key("CCD1_TEMP_T"))
        answers = [client.request("GET", path) for path in (*READ_ONLY, "/nothing", "/api/history?span=x")]
        answers.append(client.request("PUT", "/api/state"))
        answers.append(client.request("POST", "/api/flags/lower-all", {}, {"Origin": "http://evil.example"}))
        answers.append(client.request("POST", "/api/flags/lower-all", {}, {"X-Calcamp-Token": "x"}))
        answers.append(client.request("POST", "/api/flags/lower-all", b"x" * 9000))
    assert {status for status, _, _ in answers} == {200, 400, 401, 403, 404, 405, 413}
    for status, _, headers in answers:
        assert HEADERS.items() <= headers.items(), status
        policy = headers["content-security-policy"]
        for rule in ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
            assert rule in policy
        assert "unsafe" not in policy
        assert headers["cache-control"] in ("no-store", "no-cache")
        assert not {"server", "access-control-allow-origin", "x-powered-by"} & headers.keys()


def test_looking_changes_nothing(monitor, tmp_path):
    with running(monitor) as client:
        wait_for(lambda: client.key("CCD1_TEMP_T").get("raised"))
        before = monitor.alarms
        for path in READ_ONLY:
            assert client.request("GET", path)[0] == 200
        for path in (
            "/api/flags/CCD1_TEMP_T/lower",
            "/api/flags/lower-all",
            "/api/ds9/17283",
            "/api/copy-now",
        ):
            assert client.request("GET", path)[0] == 405
        assert monitor.alarms == before
    assert sorted(p.name for p in monitor.folder.iterdir()) == sorted(
        p.name for p in monitor.folder.iterdir() if p.name.startswith(("EUC", "HK", "EXP"))
    ), "the day-folder is read only"


def test_a_fault_tells_no_path_and_no_traceback(monitor, monkeypatch):
    with running(monitor) as client:
        wait_for(lambda: client.key("CCD1_TEMP_T"))
        monkeypatch.setattr(monitor, "history", lambda *_: Path("/no/such/secret-path").read_text())
        status, body, headers = client.request("GET", "/api/history?keys=CCD1_TEMP_T")
        assert status == 500
        assert json.loads(body) == {"error": "fault in the server (FileNotFoundError)"}
        assert HEADERS.items() <= headers.items()


def test_secrets_of_channels_are_nowhere(monitor, tmp_path):
    with running(monitor) as client:
        wait_for(lambda: client.key("CCD1_TEMP_T"))
        wait_for(lambda: client.state()["channels"][0]["failures"])
        shown = client.request("GET", "/api/state")[1].decode()
        token = client.token
    kept = "".join(
        p.read_text(errors="replace") for p in tmp_path.rglob("*") if p.suffix in (".log", ".jsonl", ".json")
    )
    assert "NOT sent by mail" in kept
    for text in (shown, kept):
        assert CANARY not in text
        assert token not in text


def test_text_of_data_forges_no_line_of_the_log(tmp_path):
    log = EventLog(tmp_path / "m.log")
    log.write("raised", "RAISED X\n2026-01-01 00:00:00,000 - INFO - LOWERED X\r\x1b[2J\u2028end")
    assert len((tmp_path / "m.log").read_text().splitlines()) == 1
    assert "\x1b" not in (tmp_path / "m.log").read_text()
    assert len((tmp_path / "m.log.jsonl").read_text().splitlines()) == 1


def test_the_page_holds_no_script_of_its_own_and_asks_nobody_else():
    page, script = (SOURCE / "static" / "index.html").read_text(), (SOURCE / "static" / "app.js").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"\son\w+\s*=|\sstyle\s*=|javascript:", page) == []
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
    ):
        assert word not in script, word
    assert re.findall(r"https?://", page + script + (SOURCE / "static" / "style.css").read_text()) == []


def test_programs_are_called_without_a_shell_and_data_run_nowhere():
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "os.system", "os.popen", "__import__"), path
                shell = [k for k in node.keywords if k.arg == "shell"]
                assert not shell or ast.unparse(shell[0].value) == "False", path
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", "") or "", *(a.name for a in node.names)]
                assert not {"pickle", "marshal", "shelve"} & set(names), path


def test_the_command_listens_on_loopback_only(tmp_path):
    day, port = Day(tmp_path / "12_Mar_19"), free_port()
    day.hk(1)
    command = [
        str(Path(sys.executable).with_name("calcamp")),
        "monitor",
        str(day.folder),
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "--state", str(tmp_path / "s")],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "NO_COLOR": "1"},
    )
    listening = "0A"

    def found():
        rows = [
            line.split()
            for name in ("tcp", "tcp6")
            if Path(f"/proc/net/{name}").is_file()
            for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        ]
        return [r[1] for r in rows if r[3] == listening and int(r[1].rpartition(":")[2], 16) == port]

    try:
        assert wait_for(found) == [f"0100007F:{port:04X}"]
        second = subprocess.run(
            [*command, "--state", str(tmp_path / "t")], capture_output=True, text=True, timeout=60
        )
        assert (second.returncode, f"port {port}" in second.stderr, "--port" in second.stderr) == (
            2,
            True,
            True,
        )
        assert ((tmp_path / "s" / "monitor.token").stat().st_mode & 0o777) == 0o600
    finally:
        process.terminate()
        process.wait(30)


def test_tokens_cannot_be_guessed(tmp_path):
    tokens = {server.load_token(tmp_path / f"{n}.token") for n in range(20)}
    assert len(tokens) == 20
    assert all(len(token) >= 32 for token in tokens), "192 random bits"
    assert all(server.cookie_of(token) != token for token in tokens)


def test_every_line_of_the_table_names_a_test_that_is_there():
    rows = [
        line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if line.startswith("| ")
    ]
    named = [(row, re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", row)) for row in rows]
    named = [(row, tests) for row, tests in named if "---" not in row and not row.startswith("| what")]
    assert len(named) > 30
    for row, tests in named:
        assert tests, f"no test: {row}"
        for file, name in tests:
            paths = list((ROOT / "tests").rglob(file))
            assert paths, file
            assert not name or any(f"def {name}(" in p.read_text() for p in paths), (file, name)
