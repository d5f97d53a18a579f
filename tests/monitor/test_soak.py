"""Three days of a campaign in some minutes: memory and descriptors of the monitor stay flat."""

import os
import random
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.monitor.monitor_support import KEYS, START, Client, Day, free_port, nominal, wait_for, webhook

pytestmark = pytest.mark.full
HOURS = 72
STEP_S = (
    3600  # seconds of the campaign written at a time, one step a second: up to 3600 times faster than life
)
EXPOSURES_PER_STEP = 40
TOKEN = "soak-" + "t" * 24


class Campaign:
    """Writes house-keeping of 82 keys at 1 Hz in a file a day, an EXP-LOG, and an image now and then."""

    def __init__(self, folder):
        self.day, self.second, self.obsid = Day(folder), 0, 17283
        self.day.hk_file.path.unlink(missing_ok=True)
        self.cells = [f"{nominal(key):.3f}" for key in KEYS]
        self.random = random.Random(2)

    def step(self, n):
        lines: dict[str, list[str]] = {}
        out = self.random.sample(range(len(KEYS)), 3) if n % 5 == 0 else []
        for k in range(STEP_S):
            time_ = START + timedelta(seconds=self.second)
            cells = list(self.cells)
            if k == 600:
                for i in out:
                    cells[i] = "-150.000"
            lines.setdefault(f"HK_{time_:%d-%m-%y}_ROE1_01.txt", []).append(
                f"{time_:%d-%m-%y_%H:%M:%S}\t" + "\t".join(cells) + "\r\n"
            )
            self.second += 1
        for name, part in lines.items():
            path = self.day.folder / name
            head = "" if path.exists() else "TimeStamp\t" + "\t".join(KEYS) + "\r\n"
            with open(path, "a", newline="") as stream:
                stream.write(head + "".join(part))
        for k in range(EXPOSURES_PER_STEP):
            self.day.expose(self.obsid, images=n % 3 == 0 and k == 0)
            self.obsid += 1


def memory(pid):
    """(resident MiB, descriptors, threads) of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return (
        int(status["VmRSS"].split()[0]) / 1024,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
    )


def look_like_a_tab(client, stop, faults):
    """What an open page asks for, all the time."""
    since = rows = generation = 0
    while not stop.is_set():
        try:
            state = client.get(f"/api/state?since={since}")
            since = state["sequence"]
            if "log" in state:
                rows = rows if state["log"]["generation"] == generation else 0
                generation = state["log"]["generation"]
                rows += len(client.get(f"/api/explog?after={rows}")["rows"])
                client.get(f"/api/history?keys={','.join(KEYS[:9])}&span=21600")
                if state["image"]["last"] is not None:
                    client.get(f"/api/quicklook/{state['image']['last']}")
                for key in state["keys"]:
                    if key.get("raised"):
                        client.post(f"/api/flags/{key['key']}/lower", {"user": "soak"})
        except TimeoutError:
            continue  # a machine that others use; how soon pages come is measured in test_browser.py
        except (OSError, AssertionError) as error:
            faults.append(repr(error)[:300])
        stop.wait(1.0)


def test_three_days_stay_flat(tmp_path):
    campaign, state = Campaign(tmp_path / "12_Mar_19"), tmp_path / "state"
    (tmp_path / "backup").mkdir()
    state.mkdir()
    config = tmp_path / "monitor.yaml"
    config.write_text(
        "monitor: soak\nperiods: {house_keeping: 1, log: 1, images: 2, results: 5, back_up: 5}\n"
        "thresholds: {messages_per_hour: 1000}\n"
    )
    (state / "monitor.token").write_text(TOKEN + "\n")
    (state / "monitor.token").chmod(0o600)
    port, stop, faults = free_port(), threading.Event(), []
    with webhook() as (hook, posts):
        command = [str(Path(sys.executable).with_name("calcamp")), "monitor", str(campaign.day.folder)]
        command += ["--port", str(port), "--backup", str(tmp_path / "backup"), "--warn"]
        command += ["--state", str(state), "--config", str(config), "--log", str(tmp_path / "m.log")]
        env = {**os.environ, "CALCAMP_WARN_SMS": f"json://127.0.0.1:{hook}/", "PYTHONUNBUFFERED": "1"}
        with (tmp_path / "out").open("w") as out:
            server = subprocess.Popen(command, env=env, stdout=out, stderr=out)
        text = wait_for(
            lambda: "#token=" in (tmp_path / "out").read_text() and (tmp_path / "out").read_text(), 60
        )
        token = text.split("#token=")[1].split()[0]
        client = Client(port, token)
        wait_for(lambda: "keys" in client.state())
        tabs = [
            threading.Thread(target=look_like_a_tab, args=(client, stop, faults), daemon=True)
            for _ in range(3)
        ]
        for tab in tabs:
            tab.start()
        samples = []
        try:
            steps = HOURS * 3600 // STEP_S
            for n in range(steps):
                begin = time.monotonic()
                campaign.step(n)
                wait_for(lambda: client.state()["hk"]["rows"] >= campaign.second, 60)
                samples.append(memory(server.pid))
                time.sleep(max(0.0, 1.0 - (time.monotonic() - begin)))
            found = client.state()
            cpu = sum(
                map(int, Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13])
            )
        finally:
            stop.set()
            for tab in tabs:
                tab.join(20)
            server.terminate()
            server.wait(60)
    resident, descriptors, threads = np.array(samples).T
    day = 24 * 3600 // STEP_S
    hours = np.arange(len(resident)) * STEP_S / 3600
    slope = np.polyfit(hours[day:], resident[day:], 1)[0]
    print("MiB every six hours:", *resident[:: 6 * 3600 // STEP_S].round().astype(int))
    print(
        f"{HOURS} h: {campaign.second} rows of {len(KEYS)} keys, {campaign.obsid - 17283} exposures, {len(posts)} warnings; "
        f"memory {resident[0]:.0f}, after a day {resident[day]:.0f}, at the end {resident[-1]:.0f}, most {resident.max():.0f} MiB, "
        f"slope {slope:.2f} MiB/h; descriptors {descriptors[day:].min():.0f} to {descriptors.max():.0f}, "
        f"threads {threads[day:].min():.0f} to {threads.max():.0f}; {cpu / os.sysconf('SC_CLK_TCK'):.0f} s of CPU"
    )
    assert faults == []
    assert found["hk"]["rows"] == campaign.second
    assert found["log"]["exposures"] == campaign.obsid - 17283
    assert not [e for e in found["events"] if e["event"] == "fault"]
    assert found["copies"][0]["error"] == ""
    assert resident.max() < 300
    assert slope < 1.0
    assert descriptors[-day:].max() - descriptors[day : 2 * day].max() < 8
    assert threads[-day:].max() <= threads[day : 2 * day].max() + 4
