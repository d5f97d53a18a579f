"""Wait mode: a session that follows an acquisition, played by the simulator."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.workflow.conftest import (
    SESSION,
    calcamp,
    make_workspace,
    planned_jobs,
    snakemake,
    start,
    steps_of,
    until,
    verdict,
)

WAIT = SESSION.replace("mode: aim", "mode: wait\ncheck_only: true").replace(
    "{poll_s: 0.2, timeout_h: 0.01, settle_s: 0.5}", "{poll_s: 0.1, timeout_h: 0.5, settle_s: 0.5}"
)  # the defaults, 5 s and 30 s, 60 times as fast


def results(folder: Path, test: str) -> Path:
    return folder / "results" / "D11" / test


def notes(folder: Path) -> dict[str, dict]:
    return {p.parent.name: json.loads(p.read_text()) for p in folder.glob("results/D11/*/waiting.json")}


def play(folder: Path, campaign: Path, speed: float, *more: str) -> subprocess.Popen:
    """The acquisition of a session, from data made before."""
    command = [Path(sys.executable).parent / "calcamp", "simulate", "D11.yaml", "--live", "--speed", speed]
    command += ["--from", campaign / "data" / "12_Mar_19", "--into", "data", *more]
    return subprocess.Popen([str(c) for c in command], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_a_gate_opens_while_the_acquisition_goes_on(campaign, tmp_path):
    """One small test, checks only; the quick one of its kind, part of make test."""
    text = WAIT.replace("BIAS01: {do: all}", "BIAS01: {do: [check]}")
    make_workspace(tmp_path, text.replace("  BIAS02: {do: all}\n  DARK01: {do: all}\n", ""))
    run = start(cwd=tmp_path)
    until(lambda: len(notes(tmp_path)) == 1, process=run)
    acquisition = play(tmp_path, campaign, 600)
    assert acquisition.wait(120) == 0
    assert run.wait(120) == 0, (tmp_path / "run.log").read_text()
    manifest = json.loads((results(tmp_path, "BIAS01") / "manifest.json").read_text())
    assert manifest["end"] == "complete"
    assert manifest["obsids"] == [1000, 1009]
    assert verdict(tmp_path, "BIAS01")["frames"] == {"declared": 10, "found": 10, "used": 10}
    assert (results(tmp_path, "BIAS01") / "BIAS01_report.pdf").is_file()
    aim = snakemake("-n", "--config", "mode=aim", cwd=tmp_path)
    assert "Nothing to be done" in aim.stdout + aim.stderr


@pytest.mark.full
def test_reports_come_while_the_acquisition_goes_on(campaign, tmp_path):
    """At 60 times the real speed the first test's report is there before the second test's last exposure."""
    make_workspace(tmp_path, WAIT)
    preview = snakemake("-n", cwd=tmp_path)
    assert preview.returncode == 0
    jobs = planned_jobs(preview.stdout + preview.stderr)
    assert jobs["acquire"] == 3
    run = start(cwd=tmp_path)
    until(lambda: len(notes(tmp_path)) == 3, process=run)
    acquisition = play(tmp_path, campaign, 60)
    until(lambda: notes(tmp_path).get("BIAS01", {}).get("frames", 0) >= 3, process=run)
    said = calcamp("status", "D11.yaml", cwd=tmp_path)
    assert "running" in said.stdout
    state = json.loads(calcamp("status", "D11.yaml", "--json", cwd=tmp_path).stdout)
    first = next(t for t in state["tests"] if t["test"] == "DARK01")
    assert first["acquired"] == "waiting"
    assert first["frames"] == [0, 4]
    assert 40 < first["waiting"]["left_min"] < 50  # four darks of 565 s
    assert acquisition.wait(300) == 0
    assert run.wait(300) == 0, (tmp_path / "run.log").read_text()
    last = max(
        (tmp_path / "data" / "12_Mar_19").glob("EUC_1019_*_CCD*.fits"), key=lambda p: p.stat().st_mtime
    )
    report = results(tmp_path, "BIAS01") / "BIAS01_report.pdf"
    margin = last.stat().st_mtime - report.stat().st_mtime
    print(f"report of BIAS01 {margin:.1f} s before the last exposure of BIAS02")
    assert margin > 0
    for test, frames in (("BIAS01", 10), ("BIAS02", 10), ("DARK01", 4)):
        assert verdict(tmp_path, test)["status"] == "complete"
        assert verdict(tmp_path, test)["frames"]["found"] == frames
    assert not notes(tmp_path)
    # wait, then aim: nothing is done again; the sub-tasks left out before are all that is planned then
    aim = snakemake("-n", "--config", "mode=aim", cwd=tmp_path)
    assert "Nothing to be done" in aim.stdout + aim.stderr
    path = tmp_path / "D11.yaml"
    path.write_text(path.read_text().replace("check_only: true", "check_only: false"))
    more = planned_jobs((r := snakemake("-n", "--config", "mode=aim", cwd=tmp_path)).stdout + r.stderr)
    assert "acquire" not in more
    assert "check" not in more
    assert more["bias_basic"] == 6


ABSENT = ("PTC01", "PTC02_590", "PTC02_730", "PTC02_880", "CHINJ01", "CHINJ02", "COSMETICS00", "DARK01")


@pytest.mark.full
def test_tests_that_do_not_come_block_no_other(campaign, tmp_path):
    """Twelve gates for few places: the test that is there is reported while the others wait, then SIGTERM."""
    session, before = WAIT.split("tests:")[0], "".join(f"  {name}: {{do: all}}\n" for name in ABSENT[:5])
    after = "".join(f"  {name}: {{do: all}}\n" for name in (*ABSENT[5:], "BIAS02", "BIAS02.2", "BIAS02.3"))
    make_workspace(tmp_path, session + "tests:\n" + before + "  BIAS01: {do: all}\n" + after)
    folder = tmp_path / "data" / "12_Mar_19"
    folder.mkdir(parents=True)
    log = next((campaign / "data" / "12_Mar_19").glob("EXP_LOG*"))
    lines = [
        line
        for line in log.read_bytes().splitlines(keepends=True)
        if b"\tBIAS02\t" not in line and b"\tDARK01\t" not in line
    ]
    for path in (campaign / "data" / "12_Mar_19").iterdir():
        if path != log:
            shutil.copy2(path, folder)
    (folder / log.name).write_bytes(b"".join(lines))
    run = start(cwd=tmp_path)
    try:
        until((results(tmp_path, "BIAS01") / "BIAS01_report.pdf").is_file, 400, run)
        waiting = notes(tmp_path)
        assert len(waiting) >= 3
        assert all(not note["frames"] for note in waiting.values())
        yielded = [
            p
            for p in tmp_path.glob("results/D11/*/manifest.json")
            if json.loads(p.read_text())["end"] == "yielded"
        ]
        assert 1 <= len(yielded) <= 4  # as many as stood before it, not all
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 128 + signal.SIGTERM
    finally:
        run.kill()
    until(lambda: not steps_of(tmp_path), 10)
    state = json.loads(calcamp("status", "D11.yaml", "--json", cwd=tmp_path).stdout)
    assert state["run"] == "not running"
    # those that gave way are waited for again by the next run in wait mode
    again = planned_jobs((r := snakemake("-n", cwd=tmp_path)).stdout + r.stderr)
    assert again["acquire"] == 11


@pytest.mark.full
def test_stop_ends_what_waits_with_a_report(campaign, tmp_path):
    make_workspace(tmp_path, WAIT.replace("  BIAS02: {do: all}\n  DARK01: {do: all}\n", ""))
    shutil.copytree(campaign / "data", tmp_path / "data")
    log = next((tmp_path / "data" / "12_Mar_19").glob("EXP_LOG*"))
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:16]))  # five exposures
    run = start(cwd=tmp_path)
    until(lambda: notes(tmp_path).get("BIAS01", {}).get("frames") == 5, process=run)
    assert "5/10 frames, last OBSID 1004" in calcamp("status", "D11.yaml", cwd=tmp_path).stdout
    second = calcamp("run", "D11.yaml", cwd=tmp_path)
    assert second.returncode == 1
    assert "is being run since" in second.stderr
    assert "process" in second.stderr
    plain = snakemake("-c1", cwd=tmp_path)
    assert plain.returncode != 0
    assert "Directory cannot be locked" in plain.stderr or "is being run" in plain.stderr
    assert calcamp("stop", "D11.yaml", cwd=tmp_path).returncode == 0
    assert run.wait(200) == 0, (tmp_path / "run.log").read_text()
    judged = verdict(tmp_path, "BIAS01")
    assert judged["status"] == "incomplete"
    manifest = json.loads((results(tmp_path, "BIAS01") / "manifest.json").read_text())
    assert manifest["end"] == "stopped"
    assert "5 of 10 frames missing" in manifest["reason"]
    assert (results(tmp_path, "BIAS01") / "BIAS01_report.pdf").is_file()
    # the next run looks again, for there are new rows
    log.write_bytes(whole)
    run = start("--config", "mode=aim", cwd=tmp_path)
    assert run.wait(200) == 0
    assert verdict(tmp_path, "BIAS01")["status"] == "complete"


@pytest.mark.full
def test_a_time_out_ends_a_test_and_no_other(campaign, tmp_path):
    """Silence: what is there is reported, what is missing is said, the other test is whole."""
    make_workspace(
        tmp_path, WAIT.replace("  DARK01: {do: all}\n", "").replace("timeout_h: 0.5", "timeout_h: 0.002")
    )
    shutil.copytree(campaign / "data", tmp_path / "data")
    log = next((tmp_path / "data" / "12_Mar_19").glob("EXP_LOG*"))
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[: 1 + 3 * 17]))  # seven of BIAS02
    run = start(cwd=tmp_path)
    assert run.wait(300) == 0, (tmp_path / "run.log").read_text()
    assert verdict(tmp_path, "BIAS01")["status"] == "complete"
    judged = verdict(tmp_path, "BIAS02")
    assert judged["status"] == "incomplete"
    assert judged["frames"] == {"declared": 10, "found": 7, "used": 7}
    manifest = json.loads((results(tmp_path, "BIAS02") / "manifest.json").read_text())
    assert manifest["end"] == "timeout"
    assert len(manifest["missing"]) == 3
