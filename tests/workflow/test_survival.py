"""Runs that are killed, ended, doubled, or whose disk is full: the products are those of a quiet run."""

from __future__ import annotations

import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.faults.killer import kill_one
from tests.workflow.conftest import (
    ROOT,
    SESSION,
    calcamp,
    make_workspace,
    planned_jobs,
    snakemake,
    start,
    steps_of,
    tables,
    until,
    verdict,
)

SMALL = SESSION.replace("  BIAS01: {do: all}\n  BIAS02: {do: all}\n", "").replace(
    "DARK01: {do: all}", "DARK01: {do: [check, meta]}"
)
TINY = SMALL.replace("[check, meta]", "[check]")
SECONDS = 400


def copy_data(campaign: Path, folder: Path) -> Path:
    """The data of the campaign in a workspace of its own: links to the frames, which nobody writes to."""
    shutil.copytree(campaign / "data", folder / "data", copy_function=os.link)
    return folder


def go_on(folder: Path) -> subprocess.CompletedProcess:
    """What `calcamp status` says to do after a kill, repeated where a step was killed, to the end."""
    for _ in range(4):
        process = start("--unlock-dead", cwd=folder)
        process.wait(SECONDS)
        if process.returncode == 0:
            return process
        until(lambda: not steps_of(folder), 60)
    raise AssertionError((folder / "run.log").read_text()[-5000:])


def results_of(folder: Path, tests) -> dict:
    """All joined tables, and the verdicts without their times."""
    found = {}
    for test in tests:
        found[test] = tables(folder, test)
        judged = verdict(folder, test)
        found[f"{test}/verdict"] = {
            k: judged[k] for k in ("headline", "compliance", "flags", "verdict", "status", "frames")
        }
    return found


@pytest.fixture(scope="module")
def quiet(campaign, tmp_path_factory) -> Path:
    """The small session, undisturbed."""
    folder = copy_data(campaign, tmp_path_factory.mktemp("quiet") / "work")
    make_workspace(folder, SMALL)
    assert start(cwd=folder).wait(SECONDS) == 0, (folder / "run.log").read_text()
    return folder


def survive(folder: Path, kills: int, seed: int, longest_s: float, expected: dict) -> dict[str, int]:
    """Kill a run again and again at random times, compare whenever it comes to its end; kinds killed."""
    rng, killed, compared = random.Random(seed), collections.Counter(), 0
    while sum(killed.values()) < kills:
        process = start("--unlock-dead", cwd=folder)
        deadline = time.monotonic() + rng.uniform(0.2, longest_s)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is None and (kind := kill_one(process.pid, rng)):
            killed[kind] += 1
        process.wait(SECONDS)
        until(lambda: not steps_of(folder), SECONDS)  # a Snakemake whose calcamp run was killed goes on
        if process.returncode == 0:
            assert results_of(folder, verdicts(expected)) == expected
            compared += 1
            shutil.rmtree(folder / "results")
    go_on(folder)
    assert results_of(folder, verdicts(expected)) == expected
    assert calcamp("verify", "results/D11", cwd=folder).returncode == 0
    again = snakemake("-n", cwd=folder)
    assert "Nothing to be done" in again.stdout + again.stderr
    print(f"{dict(killed)} killed, {compared + 1} times at the end")
    return killed


def verdicts(expected: dict) -> list[str]:
    return [name for name in expected if "/" not in name]


def test_two_kills_of_a_small_session(campaign, tmp_path):
    """Snakemake, then a step, up to the verdict; the quick one of its kind, part of make test."""
    rng, folder = random.Random(1), copy_data(campaign, tmp_path / "work")
    make_workspace(folder, TINY)
    target = "results/D11/DARK01/verdict.json"
    process = start(target, cwd=folder)
    until(lambda: list(folder.glob("results/D11/DARK01/ccd*/check.part")), SECONDS, process)
    assert kill_one(process.pid, rng, ("main",)) == "main"
    process.wait(SECONDS)
    assert "calcamp run D11.yaml --unlock-dead" in calcamp("status", "D11.yaml", cwd=folder).stdout
    process = start("--unlock-dead", target, cwd=folder)
    until(lambda: kill_one(process.pid, rng, ("step",)), SECONDS, process)
    process.wait(SECONDS)
    # The verdict names the step that was killed; the next run tries just that again.
    assert start("--unlock-dead", target, cwd=folder).wait(SECONDS) == 0
    disturbed = results_of(folder, ["DARK01"])
    shutil.rmtree(folder / "results")
    assert start(target, cwd=folder).wait(SECONDS) == 0
    assert results_of(folder, ["DARK01"]) == disturbed


@pytest.mark.full
def test_ten_random_kills(campaign, quiet, tmp_path):
    folder = copy_data(campaign, tmp_path / "work")
    make_workspace(folder, SMALL)
    seconds = 14 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    killed = survive(folder, 10, 20, seconds, results_of(quiet, ["DARK01"]))
    assert len(killed) >= 2


@pytest.mark.full
def test_thirty_random_kills_over_three_tests(campaign, finished, tmp_path):
    folder = copy_data(campaign, tmp_path / "work")
    make_workspace(folder, SESSION)
    survive(folder, 30, 21, 25, results_of(finished, ["BIAS01", "BIAS02", "DARK01"]))


@pytest.mark.full
def test_a_killed_run_is_told_and_cleared_away_on_demand(campaign, quiet, tmp_path):
    folder = copy_data(campaign, tmp_path / "work")
    make_workspace(folder, SMALL)
    process = start(cwd=folder)
    state = folder / "results" / "D11" / "config" / "run.json"
    until(lambda: list(folder.glob("results/D11/DARK01/ccd*/check.part")), SECONDS, process)
    os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)
    process.wait(60)
    killed = time.monotonic()
    until(lambda: not steps_of(folder), 60)
    assert time.monotonic() - killed < 5 * max(1.0, os.getloadavg()[0] / 2)  # no orphan after 5 s
    said = calcamp("status", "D11.yaml", cwd=folder)
    assert "dead (killed)" in said.stdout
    assert "calcamp run D11.yaml --unlock-dead" in said.stdout
    refused = calcamp("run", "D11.yaml", "-c2", cwd=folder, stdin=subprocess.DEVNULL)
    assert refused.returncode == 1
    assert "is dead" in refused.stderr
    assert "--unlock-dead" in refused.stderr
    assert "crashed" not in {
        json.loads(p.read_text())["status"] for p in folder.glob("results/D11/DARK01/*/*/*.json")
    }
    go_on(folder)
    assert results_of(folder, ["DARK01"]) == results_of(quiet, ["DARK01"])


@pytest.mark.full
def test_sigterm_ends_at_once_and_leaves_no_lock(campaign, quiet, tmp_path):
    folder = copy_data(campaign, tmp_path / "work")
    make_workspace(folder, SMALL)
    process = start(cwd=folder)
    until(lambda: list(folder.glob("results/D11/DARK01/ccd*/check.part")), SECONDS, process)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    until(lambda: not steps_of(folder), 20)
    assert "not running" in calcamp("status", "D11.yaml", cwd=folder).stdout
    assert start(cwd=folder).wait(SECONDS) == 0  # no --unlock-dead
    assert results_of(folder, ["DARK01"]) == results_of(quiet, ["DARK01"])


@pytest.mark.full
def test_two_sessions_in_one_folder(campaign, quiet, tmp_path):
    """One waits, one runs; the end of the second takes nothing away from the first."""
    folder = copy_data(campaign, tmp_path / "work")
    make_workspace(folder, SMALL)
    waiting = SMALL.replace("session: D11", "session: D12").replace("mode: aim", "mode: wait")
    waiting = waiting.replace("DARK01: {do: [check, meta]}", "BIAS01: {do: [check], start_obsid: 5000}")
    (folder / "D12.yaml").write_text(waiting.replace("timeout_h: 0.01", "timeout_h: 1"))
    command = ["run", "D12.yaml", "-c2"]
    with (folder / "D12.log").open("wb") as stream:
        first = subprocess.Popen(
            [str(Path(shutil.which("calcamp", path=str(Path(sys.executable).parent)))), *command],
            cwd=folder,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    note = folder / "results" / "D12" / "BIAS01" / "waiting.json"
    until(note.is_file, SECONDS, first)
    assert start(cwd=folder).wait(SECONDS) == 0
    assert results_of(folder, ["DARK01"]) == results_of(quiet, ["DARK01"])
    again = calcamp(*command, cwd=folder)
    assert again.returncode == 1
    assert "session D12 is being run since" in again.stderr
    assert str(json.loads((folder / "results/D12/config/run.json").read_text())["pid"]) in again.stderr
    plain = snakemake("-c1", cwd=folder, configfile="D12.yaml")
    assert plain.returncode != 0
    assert "Directory cannot be locked" in plain.stderr or "is being run" in plain.stderr
    assert calcamp("stop", "D12.yaml", cwd=folder).returncode == 0
    assert first.wait(SECONDS) == 0
    assert json.loads((folder / "results/D12/BIAS01/manifest.json").read_text())["end"] == "stopped"


@pytest.mark.full
def test_raw_data_copied_again_rerun_nothing(campaign, quiet, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(quiet, folder, symlinks=True)
    for path in (folder / "data").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)  # another inode, another time, the same content
    again = snakemake("-n", cwd=folder)
    assert "Nothing to be done" in again.stdout + again.stderr
    assert calcamp("verify", "results/D11", cwd=folder).returncode == 0


@pytest.mark.full
def test_damaged_memory_of_snakemake(campaign, quiet, tmp_path):
    """Bytes of .snakemake flipped: the same products after one run, and no traceback."""
    folder = tmp_path / "work"
    shutil.copytree(quiet, folder, symlinks=True)
    rng, removed, expected = random.Random(7), 0, results_of(quiet, ["DARK01"])
    sound = tmp_path / "sound"
    shutil.copytree(folder / ".snakemake", sound)
    for _ in range(12):
        shutil.rmtree(folder / ".snakemake")
        shutil.copytree(sound, folder / ".snakemake")
        records = sorted(p for p in (folder / ".snakemake" / "metadata").rglob("*") if p.is_file())
        for path in rng.sample(records, 4):
            content = bytearray(path.read_bytes())
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content)
        again = calcamp("run", "D11.yaml", "-c2", cwd=folder)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "Traceback" not in again.stdout + again.stderr
        removed += "damaged records in .snakemake removed" in again.stderr
        assert results_of(folder, ["DARK01"]) == expected
    assert removed
    assert calcamp("verify", "results/D11", cwd=folder).returncode == 0


def test_a_run_that_ends_too_early_is_not_taken_for_whole(campaign, tmp_path):
    """Snakemake says it ended well, a report is not there: exit 1, named. So far seen as snakemake#897 only."""
    folder = copy_data(campaign, tmp_path / "work")
    make_workspace(folder, TINY)
    (folder / "Snakefile").write_text('rule all:\n    shell: "true"\n')
    done = calcamp("run", "D11.yaml", "-c1", cwd=folder)
    assert done.returncode == 1
    assert "DARK01_report.pdf" in done.stderr
    assert "is not there" in done.stderr


def test_no_profile_keeps_what_a_failed_job_left():
    for path in (ROOT / "profiles").glob("*/profile.yaml"):
        assert "keep-incomplete" not in path.read_text()
        assert "rerun-incomplete: true" in path.read_text()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes; yields a function that makes it larger."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.getuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], check=False).returncode
    ):
        pytest.skip("needs root and the right to mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.full
def test_a_full_disk(campaign, quiet, tmp_path, small_disk):
    folder = copy_data(campaign, tmp_path / "work")
    make_workspace(folder, SMALL)
    (folder / "results").symlink_to(small_disk)
    first = start(cwd=folder)
    assert first.wait(SECONDS) != 0
    said = (folder / "run.log").read_text() + "".join(p.read_text() for p in small_disk.rglob("*.log"))
    assert "No space left on device" in said
    assert "make room and run again" in said
    assert "D11" in said
    subprocess.run(["mount", "-o", "remount,size=200m", small_disk], check=True)
    go_on(folder)
    assert results_of(folder, ["DARK01"]) == results_of(quiet, ["DARK01"])
    jobs = planned_jobs((r := snakemake("-n", cwd=folder)).stdout + r.stderr)
    assert not jobs
