"""The page in a real browser, warnings at a real mail server, DS9 on a virtual screen, a day of data in ten tabs."""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.monitor.monitor_support import (
    KEYS,
    LIMITS,
    Day,
    mail_server,
    nominal,
    running,
    wait_for,
    webhook,
)

from calcamp.monitor.log import EventLog
from calcamp.monitor.settings import Channel, MonitorFile, Periods, Thresholds
from calcamp.monitor.watch import Monitor

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = MonitorFile(periods=Periods(house_keeping=1.0, log=1.0, images=1.0, results=1.0))
pytestmark = pytest.mark.full
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
needs_ds9 = pytest.mark.skipif(
    not all(map(shutil.which, ("ds9", "xpaget", "Xvfb"))), reason="DS9, XPA or Xvfb is not installed"
)


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


def open_page(browser, url, **options):
    """A page that keeps its errors, dialogs and requests to elsewhere."""
    page = browser.new_page(**options)
    page.faults, page.outside = [], []
    page.on("pageerror", lambda e: page.faults.append(str(e)))
    page.on("console", lambda m: page.faults.append(m.text) if m.type == "error" else None)
    page.on("dialog", lambda d: (page.faults.append(d.message), d.dismiss()))
    page.on("request", lambda r: None if r.url.startswith(url.split("#")[0]) else page.outside.append(r.url))
    page.goto(url, wait_until="load")
    return page


def until(page, expression, seconds=20.0, timeout=None):
    """Wait until an expression holds in the page. The page's own policy forbids the browser's way of waiting."""
    end = time.monotonic() + (timeout / 1000 if timeout else seconds)
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(50)


def sees(page, day, selector, seconds=30.0):
    """Wait for a selector while good readings go on: on a busy machine the page comes late, and they would be stale."""
    end = time.monotonic() + seconds
    while not page.locator(selector).count():
        assert time.monotonic() < end, selector
        day.hk(1)
        page.wait_for_timeout(300)


@needs_browser
def test_out_of_limits_to_board_mail_and_webhook(browser, tmp_path):
    pytest.importorskip("aiosmtpd")
    day = Day(tmp_path / "12_Mar_19")
    day.hk(30)
    day.expose(17283)
    with mail_server() as (smtp, mails), webhook() as (hook, posts):
        mail = f"mailto://127.0.0.1:{smtp}/?from=monitor@example.org&to=a@example.org,b@example.org&mode=insecure&smtp=127.0.0.1"
        channels = [
            Channel(name="mail", kind="email", url=mail),
            Channel(name="sms", kind="sms", url=f"json://127.0.0.1:{hook}/"),
        ]
        monitor = Monitor(
            day.folder,
            SETTINGS,
            LIMITS,
            channels,
            state_dir=tmp_path / "state",
            log=EventLog(tmp_path / "m.log"),
        )
        with running(monitor) as client:
            page = open_page(browser, client.url)
            page.wait_for_selector("#board .tile")
            sees(page, day, "#board #key-CCD1_TEMP_T.inside")
            assert page.locator("#board .tile").count() == 82
            delays = []
            for n in range(3):
                page.wait_for_timeout(370 * n)
                day.hk(1, CCD1_TEMP_T=-140.0)
                begin = time.monotonic()
                page.wait_for_selector("#key-CCD1_TEMP_T.out", timeout=5000)
                delays.append(time.monotonic() - begin)
                day.hk(1)
                sees(page, day, "#key-CCD1_TEMP_T.inside.latched")
                if n < 2:  # lowered by its key; the next excursion raises and warns again
                    page.focus("#key-CCD1_TEMP_T")
                    page.keyboard.press("l")
                    sees(page, day, "#key-CCD1_TEMP_T.inside:not(.latched)")
            print("board after", [round(d, 2) for d in delays])
            assert max(delays) < 3.0
            wait_for(lambda: len([m for _, m in mails if "CCD1_TEMP_T" in m and "HK WARNING" in m]) == 6, 20)
            wait_for(lambda: len([p for p in posts if "OOL" in p["message"]]) == 3, 20)
            assert {to for to, _ in mails} == {"a@example.org", "b@example.org"}
            # muted: grey, with a cross while out, and no message
            page.focus("#key-CCD1_TEMP_T")
            page.keyboard.press("m")
            page.wait_for_selector("#key-CCD1_TEMP_T.muted")
            count = len(posts)
            day.hk(2, CCD1_TEMP_T=40.0)
            until(page, "document.querySelector('#key-CCD1_TEMP_T .mark').textContent.includes('✕')")
            page.wait_for_timeout(1500)
            assert len(posts) == count
            # unmuted while out: raised at once
            page.keyboard.press("u")
            page.wait_for_selector("#key-CCD1_TEMP_T.out.latched")
            wait_for(lambda: len(posts) == count + 1)
            # all pages by keyboard; nothing asked elsewhere, no error in any of them
            for number in "23456":
                page.keyboard.press(number)
                page.wait_for_timeout(1300)
            page.keyboard.press("3")
            page.wait_for_selector("#log-table tbody tr")
            page.keyboard.press("/")
            page.keyboard.type("ROE1_CCD2")
            until(page, "document.querySelectorAll('#log-table tbody tr').length === 1")
            page.keyboard.press("Escape")
            page.locator("#log-table tbody tr").first.focus()
            page.keyboard.press("Enter")
            page.wait_for_selector("#images img")
            until(page, "[...document.querySelectorAll('#images img')].every(i => i.naturalWidth > 50)")
            assert page.outside == []
            assert page.faults == []


@needs_browser
def test_search_neighbours_and_links_by_keyboard(browser, tmp_path):
    """The EXP-LOG is searched by words and columns; N and P turn images; a link keeps the focus while data come."""
    import json

    day = Day(tmp_path / "data" / "12_Mar_19")
    day.hk(20)
    for n in range(4):
        day.expose(17283 + n, images=n > 1, exptime=10.0 * n)
    (tmp_path / "D11.yaml").write_text(
        "session: D11\nblock: NOSTROMO\nfilled_in_by: A. Analyst\nelvis: 7.5.X\nmode: wait\n"
        "data: {root: data, day_folders: [12_Mar_19]}\nresults: results\ntests:\n  BIAS01: {do: all}\n  DARK01: {do: all}\n"
    )
    folder = tmp_path / "results" / "D11" / "BIAS01"
    folder.mkdir(parents=True)
    flags = [{"name": "HK_OOL", "cause": "RPSU_28V_PRI_V below"}]
    (folder / "verdict.json").write_text(
        json.dumps({"verdict": "fail", "status": "complete", "flags": flags})
    )
    (folder / "BIAS01_report.html").write_text("<p>report</p>")
    monitor = Monitor(
        day.folder, SETTINGS, LIMITS, session=tmp_path / "D11.yaml", state_dir=tmp_path / "state"
    )
    with running(monitor) as client:
        page = open_page(browser, client.url)
        page.wait_for_selector("#board .tile")
        page.keyboard.press("3")
        page.wait_for_selector("#log-table tbody tr")
        count = "document.querySelectorAll('#log-table tbody tr').length"
        for text, fits in (
            ("", 12),
            ("roe1_ccd2", 4),
            ("CCD=CCD2 exptime>15", 2),
            ("test=BIAS01 exptime<15 CCD1", 2),
            ("test=BIAS", 0),
            ("exptime=10", 3),
            ("nothing=here", 0),
        ):
            page.fill("#log-find", text)
            until(page, f"{count} === {fits}")
        page.fill("#log-find", "")
        page.keyboard.press("Escape")
        page.locator("#log-table tbody tr").nth(10).focus()
        page.keyboard.press("ArrowUp")
        assert "17286 CCD1" in page.evaluate("document.activeElement.dataset.row")
        day.expose(17287, images=False)
        until(page, f"{count} === 15")
        assert "17286 CCD1" in page.evaluate("document.activeElement.dataset.row"), "the reader keeps the row"
        page.keyboard.press("Enter")
        page.wait_for_selector("#images img")
        assert "17286" in page.locator("#image-note").text_content()
        assert "BIAS01, 30 s" in page.locator("#image-note").text_content()
        page.keyboard.press("p")
        until(page, "document.querySelector('#image-note').textContent.includes('17285')")
        assert page.locator("#images .quadrant").count() == 12
        page.keyboard.press("5")
        page.wait_for_selector("#session-table a")
        note = page.locator("#session-note").text_content()
        assert "1 of 2 tests judged" in note
        assert "RPSU_28V_PRI_V below" in page.locator("#session-table td.flags").first.get_attribute("title")
        page.locator("#session-table a").first.focus()
        for _ in range(4):
            day.hk(1, RPSU_28V_PRI_V=27.0 + _ / 10)
            page.wait_for_timeout(700)
        assert page.evaluate("document.activeElement.textContent") == "HTML", "the link keeps the focus"
        page.keyboard.press("2")
        page.wait_for_selector("#plots .plot")
        page.keyboard.press("n")
        until(page, f"document.querySelector('#plots .plot').dataset.key === '{KEYS[9]}'")
        page.locator("#plots .plot").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#detail[open] canvas")
        page.check("#detail-limits")
        page.keyboard.press("Escape")
        assert page.faults == []
        assert page.outside == []


STOPPED_RSYNC = "#!/bin/sh\nkill -STOP $$\n"


@needs_browser
def test_latency_of_warnings_with_a_stopped_rsync_and_five_tabs(browser, tmp_path, monkeypatch):
    """Time from the row on disk to the mail accepted by the server, over forty excursions."""
    pytest.importorskip("aiosmtpd")
    import random

    import calcamp.monitor.copying as copying

    stuck = tmp_path / "rsync"
    stuck.write_text(STOPPED_RSYNC)
    stuck.chmod(0o755)
    monkeypatch.setattr(copying, "rsync_program", lambda: str(stuck))
    (tmp_path / "backup").mkdir()
    day, rng = Day(tmp_path / "12_Mar_19"), random.Random(4)
    day.hk(600)
    day.expose(17283)
    critical = [key for key in KEYS if LIMITS[key].severity_of(1)]
    with mail_server() as (smtp, mails):
        url = f"mailto://127.0.0.1:{smtp}/?from=monitor@example.org&to=a@example.org,b@example.org&mode=insecure&smtp=127.0.0.1"
        monitor = Monitor(
            day.folder,
            SETTINGS.model_copy(update={"thresholds": Thresholds(messages_per_hour=1000)}),
            LIMITS,
            [Channel(name="mail", kind="email", url=url)],
            state_dir=tmp_path / "state",
            log=EventLog(tmp_path / "m.log"),
            backup=str(tmp_path / "backup"),
        )
        with running(monitor) as client:
            pages = [open_page(browser, client.url) for _ in range(5)]
            for number, page in enumerate(pages, start=1):
                page.wait_for_selector("#board .tile")
                page.keyboard.press(str(number))
            wait_for(lambda: monitor.copiers[0].state.running)
            delays = []
            for n in range(40):
                key = critical[n % len(critical)]
                pages[0].wait_for_timeout(rng.uniform(0, 1200))
                seen = len(mails)
                day.hk(1, **{key: 60.0})
                begin = time.monotonic()
                hits = wait_for(
                    lambda seen=seen: [
                        i for i, (_, text) in enumerate(mails) if i >= seen and "HK WARNING" in text
                    ],
                    30,
                )
                delays.append(mails.times[hits[0]] - begin)
                day.hk(1)
                wait_for(lambda key=key: client.key(key).get("state") == "inside")
                client.post(f"/api/flags/{key}/lower", {"user": "test"})
            assert monitor.copiers[0].state.running, "rsync stood still all the time"
            for page in pages:
                page.close()
    p50, p95 = statistics.median(delays), sorted(delays)[int(0.95 * len(delays))]
    print(f"row to mail: median {p50:.2f} s, p95 {p95:.2f} s, most {max(delays):.2f} s")
    assert p95 < 10


PAYLOADS = [
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "'\"><svg onload=window.hit=1>",
    "javascript:window.hit=1",
    "{{7*7}}",
    "</title><script>window.hit=1</script>",
]


@needs_browser
def test_no_script_of_data_runs_in_the_page(browser, tmp_path):
    import json

    day = Day(tmp_path / "12_Mar_19")
    keys = ["TimeStamp", *KEYS[:3], *PAYLOADS]
    numbers = "\t".join(["1.0"] * (len(keys) - 1))
    (day.folder / "HK_13-03-19_ROE1_01.txt").write_text(
        "\t".join(keys) + f"\n13-03-19_07:00:00\t{numbers}\n13-03-19_07:00:01\t{numbers}\n"
    )
    for n, payload in enumerate(PAYLOADS):
        day.expose(17283 + n, images=False, test=payload, operator=payload, comments=payload, source=payload)
    folder = tmp_path / "results" / "BIAS01"
    folder.mkdir(parents=True)
    text = PAYLOADS[1]
    (folder / "verdict.json").write_text(
        json.dumps({"verdict": text, "status": text, "flags": [{"name": text, "cause": text}]})
    )
    (folder / "BIAS01_report.html").write_text(
        "<script>window.opener.hit=1;document.title='ran'</script><p id=p>report</p>"
    )
    monitor = Monitor(
        day.folder, SETTINGS, LIMITS, state_dir=tmp_path / "state", results=tmp_path / "results", tag="x"
    )
    with running(monitor) as client:
        page = open_page(browser, client.url)
        page.wait_for_selector("#board .tile")
        for number in "23456":
            page.keyboard.press(number)
            page.wait_for_timeout(1300)
        page.keyboard.press("3")
        page.check("#log-all")
        page.wait_for_timeout(500)
        assert page.evaluate("window.hit") is None
        assert page.locator("main script, main svg, main img[src=x]").count() == 0
        report = browser.new_page()
        report.goto(client.url.split("#")[0] + "report/BIAS01/BIAS01_report.html")
        assert report.title() != "ran"
        assert report.locator("#p").text_content() == "report"


@needs_browser
@pytest.mark.parametrize("size", [(390, 800), (1024, 768), (1920, 1080)])
def test_the_page_fits_phone_and_projector(browser, tmp_path, size):
    day = Day(tmp_path / "12_Mar_19")
    day.hk(60)
    day.expose(17283)
    monitor = Monitor(day.folder, SETTINGS, LIMITS, state_dir=tmp_path / "state")
    with running(monitor) as client:
        page = open_page(browser, client.url, viewport={"width": size[0], "height": size[1]})
        page.wait_for_selector("#board .tile")
        for number in "123456":
            page.keyboard.press(number)
            page.wait_for_timeout(900)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0] + 1, number
        assert float(page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")) >= 16


@needs_ds9
def test_ds9_commands_one_instance_only(tmp_path):
    from calcamp.monitor.ds9 import Ds9, Ds9Error, Instance, spots_region

    day = Day(tmp_path / "12_Mar_19")
    day.expose(17283)
    day.expose(17284)
    files = sorted(day.folder.glob("EUC*.fits"))
    number = next(n for n in range(90, 140) if not Path(f"/tmp/.X{n}-lock").exists())
    screen = subprocess.Popen(
        ["Xvfb", f":{number}", "-screen", "0", "1400x900x24"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    sockets = Path("/tmp") / f"xpa{os.getpid()}"  # a socket's path must be short
    sockets.mkdir(mode=0o700)
    env = {**os.environ, "DISPLAY": f":{number}", "XPA_METHOD": "unix", "XPA_TMPDIR": str(sockets)}
    program = Ds9(env)
    try:
        wait_for(lambda: Path(f"/tmp/.X{number}-lock").exists())
        first = program.start("calcamp-one", wait_s=60)
        with pytest.raises(Ds9Error, match="is running"):
            program.start("calcamp-one")
        program.start("calcamp-two", wait_s=60)
        with pytest.raises(Ds9Error, match="2 DS9s"):
            program.resolve(None)
        with pytest.raises(Ds9Error):
            program.resolve("*")
        assert program.resolve("calcamp-one") == first
        regions = {6: spots_region([(100.0, 200.0, "E}{exit")])}
        assert program.show(first, enumerate(files, 1), regions, tile=True) == 6
        assert program._run("xpaget", "calcamp-one", "frame", "all").split() == ["1", "2", "3", "4", "5", "6"]
        assert program._run("xpaget", "calcamp-two", "file").strip() == "", "the other one is untouched"
        assert "circle" in program._run("xpaget", "calcamp-one", "regions")
        with pytest.raises(Ds9Error, match="characters"):
            program.show(first, [(1, Path("/tmp/[exit].fits"))])
        if shutil.which("import"):
            shot = tmp_path / "ds9.png"
            program.set(first, "raise")
            time.sleep(1)
            subprocess.run(["import", "-window", "root", str(shot)], env=env, check=True, timeout=60)
            assert shot.stat().st_size > 10_000
            keep = os.environ.get("CALCAMP_KEEP_SHOTS")
            if keep:
                shutil.copy(shot, keep)
        with pytest.raises(Ds9Error):
            program.set(Instance("gone", str(sockets / "none")), "frame", "1")
    finally:
        for title in ("calcamp-one", "calcamp-two"):
            with contextlib.suppress(Exception):
                program._run("xpaset", "-p", title, "exit")
        screen.terminate()
        screen.wait(20)
        for pid in _with_environment(str(sockets)):  # xpans outlives the DS9 that started it
            with contextlib.suppress(OSError):
                os.kill(pid, 15)
        shutil.rmtree(sockets, ignore_errors=True)


def _with_environment(text):
    """Processes that run with our folder of sockets: only ours."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if f"XPA_TMPDIR={text}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


@needs_browser
def test_a_day_of_data_in_ten_tabs(browser, tmp_path):
    """86,400 rows of 82 keys, one row a second, ten tabs: reaction, processor and memory of the server."""
    import psutil

    day = Day(tmp_path / "12_Mar_19")
    line = "\t".join(f"{nominal(key):.3f}" for key in KEYS)
    rows = []
    for second in range(86_400):
        rows.append(f"12-03-19_{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}\t{line}\r\n")
    path = day.folder / "HK_12-03-19_ROE1_01.txt"
    path.write_text("TimeStamp\t" + "\t".join(KEYS) + "\r\n" + "".join(rows), newline="")
    del rows
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("calcamp")),
        "monitor",
        str(day.folder),
        "--port",
        str(port),
    ]
    out = (tmp_path / "out").open("w+")
    server = subprocess.Popen(
        [*command, "--state", str(tmp_path / "state")],
        stderr=out,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        process = psutil.Process(server.pid)
        url = wait_for(
            lambda: next((w for w in (tmp_path / "out").read_text().split() if w.startswith("http")), None),
            60,
        )
        begin = time.monotonic()
        pages = [open_page(browser, url) for _ in range(10)]
        for page in pages:
            page.wait_for_selector("#board .tile", timeout=120_000)
        until(pages[0], "document.querySelector('#lamps').textContent.includes('23:59:59')", timeout=120_000)
        loaded = time.monotonic() - begin
        for n, page in enumerate(pages):
            page.keyboard.press(str(1 + n % 3))
        pages[0].keyboard.press("1")
        second, delays, memory = 0, [], []
        used = process.cpu_times()
        start = time.monotonic()
        while time.monotonic() - start < 60:
            out_now = second % 10 == 5
            values = line.split("\t")
            values[KEYS.index("CCD1_TEMP_T")] = "-140.000" if out_now else "-120.000"
            with open(path, "a", newline="") as stream:
                stream.write(
                    f"13-03-19_00:{second // 60:02d}:{second % 60:02d}\t" + "\t".join(values) + "\r\n"
                )
            begin = time.monotonic()
            if out_now:
                pages[0].wait_for_selector("#key-CCD1_TEMP_T.out", timeout=10_000)
                delays.append(time.monotonic() - begin)
            memory.append(process.memory_info().rss / 2**20)
            second += 1
            pages[0].wait_for_timeout(max(0, 1000 - 1000 * (time.monotonic() - begin)))
        span = time.monotonic() - start
        now = process.cpu_times()
        share = (now.user + now.system - used.user - used.system) / span
        print(
            f"loaded in {loaded:.1f} s; page after {max(delays):.2f} s at most; processor {100 * share:.0f} % of a core; "
            f"memory {memory[0]:.0f} to {max(memory):.0f} MiB"
        )
        assert max(delays) < 2.0
        assert share < 0.20
        assert max(memory) < 300
        assert memory[-1] - memory[10] < 15, "flat"
        for page in pages:
            page.close()
    finally:
        server.terminate()
        server.wait(30)
        out.close()
