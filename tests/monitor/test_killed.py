"""The real command, killed again and again: no raise and no latch is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.monitor.monitor_support import Day, wait_for, webhook

pytestmark = pytest.mark.full
KILLS = 12


def start(day, state, port):
    command = [
        str(Path(sys.executable).with_name("calcamp")),
        "monitor",
        str(day.folder),
        "--headless",
        "--warn",
    ]
    env = {**os.environ, "CALCAMP_WARN_SMS": f"json://127.0.0.1:{port}/"}
    return subprocess.Popen(
        [*command, "--state", str(state)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_twelve_kills_lose_no_alarm(tmp_path):
    day, state = Day(tmp_path / "12_Mar_19"), tmp_path / "state"
    keys = [f"CCD{n}_TEMP_{half}" for n in (1, 2, 3) for half in "TB"]
    rng = random.Random(5)
    day.hk(5)
    with webhook() as (port, got):
        process = start(day, state, port)
        wait_for(lambda: (state / "monitor.alive").exists(), 60)
        for n in range(KILLS):
            if n < len(keys):
                day.hk(1, **{keys[n]: -140.0})  # one reading only: whoever sleeps through it has lost it
                day.hk(1)
            time.sleep(rng.uniform(0.0, 2.5))
            process.send_signal(signal.SIGKILL)
            process.wait(20)
            process = start(day, state, port)
            if n % 3 == 0:
                (state / "monitor.alive").unlink(missing_ok=True)
                wait_for(lambda: (state / "monitor.alive").exists(), 60)
        try:
            wait_for(lambda: all(any(k in p["message"] for p in got) for k in keys), 60)
        finally:
            process.terminate()
            process.wait(30)
        alarms = json.loads((state / "monitor.state.json").read_text())["alarms"]
        assert all(alarms[k]["raised"] and alarms[k]["latched"] == 2 for k in keys)
        assert len(got) <= len(keys) + KILLS, "at most one duplicate a restart"
        print(f"{KILLS} kills, {len(keys)} raises, {len(got)} messages")
