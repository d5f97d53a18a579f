"""A small campaign on disk: block NOSTROMO with mini CCDs, data made by the simulator, run by Snakemake."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SESSION = """\
session: D11
block: NOSTROMO
filled_in_by: A. Analyst
elvis: 7.5.X
mode: aim
data: {root: data, day_folders: [12_Mar_19]}
results: results
wait: {poll_s: 0.2, timeout_h: 0.01, settle_s: 0.5}
tests:
  BIAS01: {do: all}
  BIAS02: {do: all}
  DARK01: {do: all}
"""


def make_workspace(folder: Path, session: str = SESSION) -> Path:
    """A folder with session, block (mini CCDs) and nothing else; returns the session file."""
    (folder / "config" / "blocks").mkdir(parents=True, exist_ok=True)
    block = (ROOT / "config" / "blocks" / "NOSTROMO.yaml").read_text()
    lines = [line for line in block.splitlines() if not line.startswith("detector:")]
    (folder / "config" / "blocks" / "NOSTROMO.yaml").write_text(
        "\n".join(lines) + "\ndetector: ccd273-mini\n"
    )
    path = folder / "D11.yaml"
    path.write_text(session)
    return path


def calcamp(*args, cwd: Path, **kwargs) -> subprocess.CompletedProcess:
    """Run the calcamp command as a user does."""
    command = [str(Path(sys.executable).parent / "calcamp"), *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False, **kwargs
    )


def snakemake(
    *args,
    cwd: Path,
    configfile: str = "D11.yaml",
    snakefile: Path = ROOT / "Snakefile",
    pythonpath: Path | None = None,
) -> subprocess.CompletedProcess:
    """Run snakemake as a user does, from a workspace, with the default profile.

    `pythonpath` is the package to use in place of the one installed.
    """
    profile = ["--workflow-profile", str(snakefile.parent / "profiles" / "default")]
    command = [sys.executable, "-m", "snakemake", "-s", str(snakefile), *profile, "--configfile", configfile]
    environment = os.environ | {"COLUMNS": "200"} | ({"PYTHONPATH": str(pythonpath)} if pythonpath else {})
    return subprocess.run(
        [*command, *map(str, args)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        env=environment,
    )


def simulate_and_run(session: Path, *options) -> None:
    """Simulate the data of `session` (with `options` of calcamp simulate), then run it to the end."""
    folder = session.parent
    done = calcamp("simulate", session, "--into", "data", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    run = snakemake("-c2", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr


def cpu_of_children() -> float:
    """CPU seconds of all processes started and ended so far: a busy machine lengthens them far less than the wall."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def planned_jobs(output: str) -> dict[str, int]:
    """Job counts of a dry-run."""
    counts, inside = {}, False
    for line in output.splitlines():
        words = line.split()
        if words[:2] == ["job", "count"]:
            inside = True
        elif inside and len(words) == 2 and words[1].isdigit():
            counts[words[0]] = int(words[1])
        elif inside and not words and counts:
            break
    return counts


def verdict(folder: Path, test: str) -> dict:
    return json.loads((folder / "results" / "D11" / test / "verdict.json").read_text())


def tables(folder: Path, test: str) -> dict[str, bytes]:
    """Joined tables of a test, as bytes."""
    return {
        p.name: p.read_bytes() for p in sorted((folder / "results" / "D11" / test / "tables").glob("*.ecsv"))
    }


@pytest.fixture(scope="session")
def campaign(tmp_path_factory) -> Path:
    """The small campaign with its data; do not run in it, copy it (`fresh`)."""
    folder = tmp_path_factory.mktemp("campaign")
    session = make_workspace(folder)
    done = calcamp("simulate", session, "--into", "data", "--seed", 5, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def fresh(campaign, tmp_path) -> Path:
    """A copy of the campaign to run in."""
    folder = tmp_path / "work"
    shutil.copytree(campaign, folder, symlinks=True)
    return folder


@pytest.fixture(scope="session")
def finished(campaign, tmp_path_factory) -> Path:
    """The campaign, run to the reports; read only."""
    folder = tmp_path_factory.mktemp("finished") / "work"
    shutil.copytree(campaign, folder, symlinks=True)
    done = snakemake("-c2", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def start(*args, cwd: Path, log: str = "run.log") -> subprocess.Popen:
    """`calcamp run D11.yaml ...` in the background, its output in a file."""
    command = [str(Path(sys.executable).parent / "calcamp"), "run", "D11.yaml", "-c2", *map(str, args)]
    with (cwd / log).open("ab") as stream:
        return subprocess.Popen(command, cwd=cwd, stdout=stream, stderr=subprocess.STDOUT)


def until(condition, seconds: float = 240, process: subprocess.Popen | None = None):
    """Poll until `condition()` is true and return it; fail after `seconds`, or when `process` has ended before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"the run ended with {process.returncode} too early")
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.05)
    return found


def steps_of(folder: Path) -> list[int]:
    """Processes of Snakemake and of steps that work in `folder`."""
    from calcamp.data.alive import processes_of

    return sorted({*processes_of(("snakemake",), folder), *processes_of(("calcamp.steps",), folder)})
