"""Nothing is lost when the mail server is dead for an hour, or the machine loses power at the worst moment."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from email import message_from_string, policy
from functools import partial

import pytest
from tests.monitor.monitor_support import KEYS, LIMITS, Day, free_port, mail_server, wait_for, webhook

from calcamp.monitor.log import EventLog
from calcamp.monitor.send import RETRY_S, Sender
from calcamp.monitor.settings import Channel, MonitorFile, Periods, Thresholds
from calcamp.monitor.watch import Monitor

FASTER = 300.0  # an hour in 12 s
TO = ("a@example.org", "b@example.org")
CRITICAL = [key for key in KEYS if LIMITS[key].severity_of(1)]


def subject(text):
    return str(message_from_string(text, policy=policy.default)["Subject"])


def test_an_hour_without_a_mail_server(tmp_path):
    """Warnings of the hour come once to each person, in order, when the server is back."""
    pytest.importorskip("aiosmtpd")
    day, port, begin = Day(tmp_path / "12_Mar_19"), free_port(), time.time()
    day.hk(3)
    url = (
        f"mailto://127.0.0.1:{port}/?from=monitor@example.org&to={','.join(TO)}&mode=insecure&smtp=127.0.0.1"
    )
    periods = Periods(house_keeping=0.2, log=1.0, images=1.0, results=1.0)
    monitor = Monitor(
        day.folder,
        MonitorFile(periods=periods, thresholds=Thresholds(reminder=0.0, hk_stopped=0.0)),
        LIMITS,
        [Channel(name="mail", kind="email", url=url)],
        state_dir=tmp_path / "state",
        log=EventLog(tmp_path / "m.log"),
        clock=lambda: begin + FASTER * (time.time() - begin),
        make_sender=partial(Sender, retry_s=tuple(s / FASTER for s in RETRY_S)),
    )

    def on_the_page():
        return json.loads(monitor.snapshot[1]).get("channels", [{}])[0]

    def on_disk():
        state = tmp_path / "state" / "monitor.state.json"
        return json.loads(state.read_text())["outbox"]["messages"] if state.is_file() else []

    def keys_on_disk():
        return {key for message in on_disk() for key in message["keys"]}

    thread = threading.Thread(target=monitor.run)
    thread.start()
    try:
        wait_for(lambda: monitor.hk.history.n and on_the_page())
        out, shown_after = {}, None
        for key in CRITICAL:
            out[key] = 60.0
            day.hk(1, **out)
            raised = time.time()
            wait_for(lambda key=key: key in keys_on_disk())
            if shown_after is None:
                wait_for(lambda: on_the_page()["error"] and on_the_page()["waiting"])
                shown_after = time.time() - raised
            time.sleep(1.0)
        time.sleep(max(0.0, begin + 3600 / FASTER + 1 - time.time()))
        titles = [m["title"] for m in on_disk()]
        assert keys_on_disk() == set(CRITICAL)
        assert len(titles) >= len(CRITICAL)
        with mail_server(port) as (_, mails):
            wait_for(lambda: not monitor.outbox.waiting("mail"))
            wait_for(lambda: monitor.senders[0].failures == 0)
            time.sleep(0.5)
            got = {to: [subject(text) for name, text in mails if name == to] for to in TO}
    finally:
        monitor.stop()
        thread.join(20)
    for to in TO:
        assert got[to] == titles, "in order, each once"
    print(f"{len(titles)} messages waited, shown red after {shown_after:.1f} s, each came once to {len(TO)}")


#: The process kills itself with SIGKILL at one point of the way of a warning; nothing is flushed, nothing tidied.
DIES = r"""
import os, signal, sys
from pathlib import Path
import calcamp.monitor.watch as watch
from calcamp.config.lookup import load_limits
from calcamp.monitor.settings import Channel, MonitorFile, Periods

point, day, state, url = sys.argv[1:]
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

class Monitor(watch.Monitor):
    def _save(self):
        if point == "before the state" and self.outbox.messages:
            die()
        super()._save()
        if point == "between state and send" and self.outbox.messages:
            die()
    def _sent(self, *arguments):
        if point == "between send and state":
            die()
        super()._sent(*arguments)

if point == "in the middle of the state":
    replace = os.replace
    def torn(source, target, **options):
        if b'"waiting"' in Path(source).read_bytes():
            with open(source, "r+b") as stream:
                stream.truncate(500)
            die()
        return replace(source, target, **options)
    os.replace = torn
settings = MonitorFile(periods=Periods(house_keeping=0.2, log=0.2, images=1.0, results=1.0))
channels = [Channel(name="sms", kind="sms", url=url)]
Monitor(Path(day), settings, load_limits().hk_limits(), channels, state_dir=Path(state)).run()
"""


@pytest.mark.parametrize(
    ("point", "copies"),
    [
        ("before the state", 1),
        ("in the middle of the state", 1),
        ("between state and send", 1),
        ("between send and state", 2),
    ],
)
def test_power_cut_on_the_way_of_a_warning(tmp_path, point, copies):
    """At most one duplicate, and none lost, wherever the cut falls."""
    day, state = Day(tmp_path / "12_Mar_19"), tmp_path / "state"
    day.hk(3)
    settings = MonitorFile(periods=Periods(house_keeping=0.2, log=0.2, images=1.0, results=1.0))
    with webhook() as (port, got):
        url = f"json://127.0.0.1:{port}/"
        channels = [Channel(name="sms", kind="sms", url=url)]

        def lives(until):
            monitor = Monitor(day.folder, settings, LIMITS, channels, state_dir=state)
            thread = threading.Thread(target=monitor.run)
            thread.start()
            try:
                wait_for(lambda: until(monitor))
            finally:
                monitor.stop()
                thread.join(20)
            return monitor

        lives(lambda monitor: monitor.hk.history.n == 3)
        day.hk(1, CCD1_TEMP_T=-140.0)
        day.hk(1)  # back inside: who sleeps through it has lost it
        arguments = [sys.executable, "-c", DIES, point, str(day.folder), str(state), url]
        killed = subprocess.run(arguments, env=os.environ, timeout=60, check=False, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        monitor = lives(
            lambda m: sum("CCD1_TEMP_T" in p["message"] for p in got) >= copies and not m.outbox.messages
        )
        told = [p["message"] for p in got if re.search("OOL WARNING CCD1_TEMP_T", p["message"])]
        assert len(told) == copies
        assert monitor.alarms["CCD1_TEMP_T"].raised
        assert monitor.alarms["CCD1_TEMP_T"].latched == 2
