"""The gate in wait mode: its ends, and a log, frames and day-folder that misbehave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from tests.faults.dayfolder import DayFolder

from calcamp.campaign.structure import expected_keys
from calcamp.data import alive
from calcamp.data.files import read_json, write_json
from calcamp.steps.acquire import Watch, main

BIAS = [{"frames": 4, "keys": {"exptime": 0}}]
PTC = [{"frames": 2, "keys": {"exptime": t, "wave": 4}} for t in (1.0, 2.0, 3.0)]


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def go(self, seconds: float) -> None:
        self.time += seconds


def plan(folder, name: str, columns: list, others=(), **gate) -> dict:
    """A plan file's content for the gate of a test."""
    gates = [
        {"name": n, "log_name": n, "frames": sum(c["frames"] for c in cs), "look": "0"}
        for n, cs in others or [(name, columns)]
    ]
    return {
        "gate": {
            "name": name,
            "mode": "wait",
            "folders": [str(folder)],
            "obsids": None,
            "start_obsid": None,
            "occurrence": 1,
            "entries": 1,
            "poll_s": 5,
            "timeout_h": 4,
            "settle_s": 30,
            "overtaken_min": 30,
            "others": gates,
            "stop_file": str(folder.parent / "STOP"),
        }
        | gate,
        "structure": {
            "log_name": name,
            "columns": [{"frames": c["frames"], "keys": expected_keys(c, name)} for c in columns],
            "waived": ["motr_siz"],
            "colour_blind": True,
            "equipment": {},
            "commanded": [c["keys"] for c in columns],
        },
    }


class Kit:
    """A day-folder, a clock and the gate of one test."""

    def __init__(self, folder, columns=BIAS, name="BIAS01", **gate):
        self.day, self.clock, self.said = DayFolder(folder / "12_Mar_19"), Clock(), []
        made = plan(self.day.folder, name, columns, **gate)
        self.columns, self.name = columns, name
        self.results = folder / "results" / name
        self.results.mkdir(parents=True)
        self.watch = Watch(
            made["gate"],
            made["structure"],
            self.results,
            say=lambda text, flush: self.said.append(text),
            now=self.clock,
        )

    def poll(self, seconds: float = 5) -> tuple | None:
        """Time goes by, then one look."""
        self.clock.go(seconds)
        self.watch.see()
        end = self.watch.end()
        self.watch.note()
        return end

    def take(self, *columns: int, **options) -> int:
        """Take the columns given (from 1), or all."""
        for number in columns or range(1, len(self.columns) + 1):
            last = self.day.expose(
                self.columns[number - 1], self.name, self.columns[number - 1]["frames"], **options
            )
        return last

    @property
    def note(self) -> dict:
        return json.loads((self.results / "waiting.json").read_text())


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path)


def test_a_test_is_complete_once_its_frames_have_settled(kit):
    assert kit.poll() is None
    for n in range(4):
        kit.day.expose(BIAS[0], "BIAS01")
        assert kit.poll(90) is None
        assert kit.watch.look.alignment.complete == (n == 3)
    assert kit.poll(29) is None
    assert kit.poll(2) == ("complete", "")


def test_another_test_ends_it_without_a_wait_for_silence(kit):
    kit.take()
    for path in kit.day.folder.glob("*.fits"):
        os.utime(path, (time.time() - 100, time.time() - 100))
    kit.day.expose(BIAS[0], "BIAS02")
    assert kit.poll() == ("complete", "")


def test_data_that_were_there_before_are_taken_at_once(kit):
    kit.take()
    for path in kit.day.folder.iterdir():
        os.utime(path, (time.time() - 3600, time.time() - 3600))
    assert kit.poll() == ("complete", "")


def test_progress_is_told(kit):
    kit.day.expose(BIAS[0], "BIAS01", 2)
    kit.poll()
    kit.poll(65)
    note = kit.note
    assert (note["frames"], note["declared"], note["last_obsid"]) == (2, 4, 101)
    assert note["silent_min"] == pytest.approx(65 / 60, abs=0.1)
    assert 2 < note["left_min"] < 4  # two bias frames of about 94 s
    assert "2/4 frames, last OBSID 101" in kit.said[-1]
    assert alive.is_running(note)
    for _ in range(30):
        kit.poll(4)
    assert len([s for s in kit.said if "waiting for" in s]) == 4  # one a minute


# ---- content -----------------------------------------------------------------------------------------
def test_a_wrong_script_is_told_while_it_is_acquired(tmp_path):
    kit = Kit(tmp_path, PTC, "PTC01")
    kit.take(1)
    kit.poll()
    assert not kit.note["wrong"]
    kit.day.expose(PTC[1], "PTC01", exptime=7.0)
    assert kit.poll() is None
    assert any("OBSID 102, col002: exptime 7.0 in place of 2.0" in text for text in kit.said)
    assert kit.note["wrong"] == ["OBSID 102, col002: exptime 7.0 in place of 2.0"]
    kit.poll()
    assert len([text for text in kit.said if "wrong" in text]) == 1  # told once


def test_serials_and_operator_are_no_wrong_script(tmp_path):
    kit = Kit(tmp_path, PTC, "PTC01")
    kit.take(1, operator="xyz", sn_ccd1="other")
    kit.poll()
    assert not kit.note["wrong"]


def test_a_filter_that_the_test_does_not_use_is_told(tmp_path):
    kit = Kit(tmp_path, PTC, "PTC01")
    kit.watch.declared["colour_blind"] = False
    kit.take(1, wave=2)
    kit.poll()
    assert kit.note["frames"] == 0
    assert kit.note["wrong"][0] == "OBSID 100: wave 2, which no column of the test declares"


def test_an_abort_and_restart_with_obsids_going_on_resolves_itself(tmp_path):
    kit = Kit(tmp_path, PTC, "PTC01")
    kit.take(1, 2)
    kit.poll()
    kit.take()
    assert kit.poll() is None
    assert kit.poll(35) == ("complete", "")
    assert [e.obsid for e, _, _ in kit.watch.look.assigned] == list(range(104, 110))


def test_a_restart_that_passes_through_the_right_number_is_waited_for(kit):
    kit.day.expose(BIAS[0], "BIAS01", 2)
    kit.poll(90)
    kit.day.pause(400)  # aborted; the operator starts the script again
    for n in range(3):
        kit.day.expose(BIAS[0], "BIAS01")
        for _ in range(9):  # the second exposure makes four, which look like a whole test
            assert kit.poll(10) is None, n
    kit.day.expose(BIAS[0], "BIAS01")
    assert kit.poll(10) is None
    assert kit.poll(31) == ("complete", "")
    assert [e.obsid for e, _, _ in kit.watch.look.assigned] == [102, 103, 104, 105]


# ---- ends --------------------------------------------------------------------------------------------
def test_silence_ends_it(kit):
    kit.day.expose(BIAS[0], "BIAS01", 3)
    assert kit.poll(14000) is None
    end, reason = kit.poll(14500)
    assert end == "timeout"
    assert "1 of 4 frames missing" in reason


def test_other_tests_in_the_log_are_no_silence(kit):
    for _ in range(10):
        kit.day.expose(BIAS[0], "FLAT01")
        assert kit.poll(3600) is None
    assert kit.poll(4 * 3600 + 1)[0] == "timeout"


def test_a_test_that_broke_off_is_overtaken(kit):
    kit.day.expose(BIAS[0], "BIAS01", 3)
    kit.poll()
    kit.day.expose(BIAS[0], "BIAS02", 2)
    assert kit.poll(1700) is None
    end, reason = kit.poll(200)
    assert end == "overtaken"
    assert "BIAS02" in reason
    assert "1 of 4 frames missing" in reason


def test_stop(kit):
    kit.day.expose(BIAS[0], "BIAS01", 1)
    assert kit.poll() is None
    (kit.day.folder.parent / "STOP").touch()
    assert kit.poll()[0] == "stopped"


def test_a_place_waited_in_vain_is_given_to_a_test_that_is_there(tmp_path):
    kit = Kit(tmp_path, name="BIAS01", others=[("DARK01", BIAS), ("BIAS01", BIAS), ("BIAS02", BIAS)])
    kit.day.expose(BIAS[0], "BIAS02", 4)
    assert kit.poll() is None
    # The gate of DARK01 waits too, and is before this one: that one gives way.
    other = tmp_path / "results" / "DARK01"
    other.mkdir()
    write_json(other / "waiting.json", {**alive.me(), "frames": 0})
    assert kit.poll(60) is None
    assert kit.poll(60) is None
    (other / "waiting.json").unlink()
    assert kit.poll(60) is None
    assert kit.poll(60)[0] == "yielded"


def test_no_place_is_given_away_while_the_other_gate_is_open(tmp_path):
    kit = Kit(tmp_path, name="BIAS01", others=[("BIAS01", BIAS), ("BIAS02", BIAS)])
    kit.day.expose(BIAS[0], "BIAS02", 4)
    other = tmp_path / "results" / "BIAS02"
    other.mkdir()
    write_json(other / "manifest.json", {"look": "0"})
    for _ in range(20):
        assert kit.poll(60) is None


# ---- faults ------------------------------------------------------------------------------------------
def test_a_half_copied_frame_is_waited_for(kit):
    last = kit.take()
    rest = kit.day.truncate(last, 2)
    for _ in range(20):
        assert kit.poll(60) is None
    assert "shorter than its header promises" in kit.note["files"][0]
    with kit.day.frame(last, 2).open("ab") as stream:
        stream.write(rest)
    assert kit.poll() is None
    assert kit.poll(31) == ("complete", "")


def test_the_first_header_alone_is_no_frame(kit):
    last = kit.take()
    kit.day.frame(last, 1).write_bytes(kit.day.frame(last, 1).read_bytes()[:2880])
    assert kit.poll(60) is None
    assert kit.poll(60) is None


def test_a_frame_that_never_comes_is_a_verdict_not_a_hang(kit):
    last = kit.take()
    kit.day.frame(last, 3).unlink()
    assert kit.poll(60) is None
    assert kit.poll(1700) is None
    assert kit.poll(200) == ("complete", "")
    assert any("gone on without 1 frames" in text for text in kit.said)


def test_a_log_that_is_late_of_its_frames(kit):
    kit.take(files=False)
    assert kit.poll(60) is None
    assert kit.watch.look.alignment.complete
    assert "not there" in kit.note["files"][0]


def test_a_day_folder_that_vanishes_for_a_minute(kit):
    kit.day.expose(BIAS[0], "BIAS01", 3)
    assert kit.poll() is None
    kit.day.vanish()
    for _ in range(12):
        assert kit.poll(5) is None
    assert kit.note["frames"] == 3  # what was seen is not forgotten
    assert "gone" in kit.note["trouble"]
    kit.day.come_back()
    kit.day.expose(BIAS[0], "BIAS01")
    assert kit.poll() is None
    assert kit.poll(35) == ("complete", "")
    assert sum("gone" in text for text in kit.said) <= 3  # told once, and in the notes of each minute


def test_garbage_duplicates_and_half_lines(kit):
    kit.day.expose(BIAS[0], "BIAS01", 2)
    kit.day.garbage()
    kit.day.duplicate_row()
    kit.day.expose(BIAS[0], "BIAS01", 1)
    rest = kit.day.half_line()
    assert kit.poll() is None
    assert kit.watch.look.alignment.declared - len(kit.watch.look.assigned) == 1
    kit.day.append(rest)
    kit.day.expose(BIAS[0], "BIAS01", 1)
    assert kit.poll() is None
    assert kit.poll(35) == ("complete", "")
    assert [e.obsid for e, _, _ in kit.watch.look.assigned] == [100, 101, 102, 103]


def test_a_log_that_is_replaced_or_rotated(kit):
    kit.day.expose(BIAS[0], "BIAS01", 1)
    kit.poll()
    kit.day.replace_log()
    kit.day.expose(BIAS[0], "BIAS01", 1)
    kit.poll()
    kit.day.rotate_log()
    kit.day.expose(BIAS[0], "BIAS01", 2)
    assert kit.poll() is None
    assert kit.poll(35) == ("complete", "")
    assert [e.obsid for e, _, _ in kit.watch.look.assigned] == [100, 101, 102, 103]


def test_a_log_whose_header_is_still_being_written(kit):
    kit.day.log.write_text("ObsID\tFile_na")
    assert kit.poll() is None
    kit.day.log.unlink()
    kit.take()
    assert kit.poll() is None
    assert kit.poll(35) == ("complete", "")


def test_a_clock_that_goes_back(kit, monkeypatch):
    kit.take()
    assert kit.poll() is None
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 7200)
    assert kit.poll(29) is None
    assert kit.poll(2) == ("complete", "")


def test_seventy_copies_arrive_late_and_in_pieces(kit):
    """Frames that grow in random pieces: none is taken early, none is lost."""
    import random

    rng = random.Random(3)
    kit.take()
    rests = {path: path.read_bytes() for path in kit.day.folder.glob("*.fits")}
    for path in rests:
        path.write_bytes(b"")
    done = dict.fromkeys(rests, 0)
    while any(done[p] < len(rests[p]) for p in rests):
        path = rng.choice([p for p in rests if done[p] < len(rests[p])])
        size = rng.randint(1, 6000)
        with path.open("ab") as stream:
            stream.write(rests[path][done[path] : done[path] + size])
        done[path] += size
        assert kit.poll(rng.choice((1, 40))) is None
    assert kit.poll(31) == ("complete", "")


# ---- the process -------------------------------------------------------------------------------------
def test_the_step_writes_the_manifest_and_takes_its_note_away(tmp_path):
    kit = Kit(tmp_path)
    kit.take()
    made = plan(kit.day.folder, "BIAS01", BIAS, settle_s=0, poll_s=0.05)
    write_json(tmp_path / "BIAS01.json", made)
    target = kit.results / "manifest.json"
    assert main(["--plan", str(tmp_path / "BIAS01.json"), "--into", str(target)]) == 0
    manifest = json.loads(target.read_text())
    assert (manifest["status"], manifest["end"], manifest["obsids"]) == ("complete", "complete", [100, 103])
    assert all(len(f["sha256"]) == 64 for e in manifest["exposures"] for f in e["files"].values())
    assert not (kit.results / "waiting.json").exists()


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
with_another_clock = pytest.mark.skipif(
    FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)"
)


def gate_process(kit, folder, clock: dict[str, str], **gate) -> subprocess.Popen:
    """The gate as a process of its own, whose clock libfaketime bends."""
    write_json(folder / "BIAS01.json", plan(kit.day.folder, "BIAS01", BIAS, **gate))
    command = [sys.executable, "-m", "calcamp.steps.acquire", "--plan", folder / "BIAS01.json"]
    return subprocess.Popen(
        [*map(str, command), "--into", str(kit.results / "manifest.json")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"LD_PRELOAD": str(FAKETIME), "NO_FAKE_STAT": "1"} | clock,
    )


@with_another_clock
def test_four_hours_by_the_clock(tmp_path):
    """The gate as it is, four hours of silence in twelve seconds; it tells where it stands each minute."""
    kit = Kit(tmp_path)
    kit.day.expose(BIAS[0], "BIAS01", 3)
    gate = gate_process(kit, tmp_path, {"FAKETIME": "+0 x1200"})
    said, _ = gate.communicate(timeout=120)
    assert gate.returncode == 0
    manifest = read_json(kit.results / "manifest.json")
    assert (manifest["status"], manifest["end"]) == ("incomplete", "timeout")
    assert "nothing new in the log for 4 h; 1 of 4 frames missing" in manifest["reason"]
    told = [line for line in said.splitlines() if "3/4 frames, last OBSID 102, log silent" in line]
    assert len(told) > 20  # once a minute; where others use the cores, a look takes minutes of this clock


@with_another_clock
def test_files_newer_than_the_clock(tmp_path):
    """After the clock was set back two hours, or with a file server that is ahead: frames come from the future."""
    kit = Kit(tmp_path)
    kit.day.expose(BIAS[0], "BIAS01", 2)
    gate = gate_process(kit, tmp_path, {"FAKETIME": "-2h"}, poll_s=0.1, settle_s=1)
    note = kit.results / "waiting.json"
    deadline = time.monotonic() + 60
    while not (note.is_file() and read_json(note)["frames"] == 2) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert datetime.fromisoformat(read_json(note)["written"]).timestamp() < time.time() - 7000
    kit.day.expose(BIAS[0], "BIAS01", 2)
    assert gate.communicate(timeout=60)[0].rstrip().endswith("complete")
    assert read_json(kit.results / "manifest.json")["obsids"] == [100, 103]


def test_a_gate_ends_when_the_workflow_is_killed(tmp_path):
    """The chain is workflow, shell, gate: a kill of the first one ends all."""
    kit = Kit(tmp_path)
    write_json(tmp_path / "BIAS01.json", plan(kit.day.folder, "BIAS01", BIAS, poll_s=0.1))
    target = kit.results / "manifest.json"
    gate = f"{sys.executable} -m calcamp.steps.acquire --plan {tmp_path / 'BIAS01.json'} --into {target}"
    code = (
        f"import subprocess; subprocess.run(['bash', '-c', 'set -e; {gate} > {tmp_path / 'log'} 2>&1; true'])"
    )
    workflow = subprocess.Popen([sys.executable, "-c", code])
    note = kit.results / "waiting.json"
    deadline = time.monotonic() + 60
    while not note.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = json.loads(note.read_text())
    assert alive.is_running(pid)
    workflow.kill()
    workflow.wait()
    killed = time.monotonic()
    while alive.is_running(pid) and time.monotonic() < killed + 20:
        time.sleep(0.05)
    assert not alive.is_running(pid)
    assert not target.exists()


def test_a_waiting_gate_is_small():
    code = (
        "import sys, calcamp.steps.acquire\n"
        "heavy = [m for m in ('pydantic', 'yaml', 'numpy', 'astropy') if m in sys.modules]\n"
        "print(heavy, open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy, kilobytes = said.rsplit(" ", 1)
    assert heavy == "[]"
    assert int(kilobytes) < 30_000
