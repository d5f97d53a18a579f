"""The cluster profiles: a real Slurm of one node, and a submit command that a site would write."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults import slurm
from tests.workflow.conftest import ROOT, SESSION, make_workspace, snakemake, start, tables

TESTS = ("BIAS01", "BIAS02", "DARK01")
SMALL = SESSION.replace("  BIAS01: {do: all}\n  BIAS02: {do: all}\n", "").replace(
    "DARK01: {do: all}", "DARK01: {do: [check]}"
)


def workspace(campaign: Path, folder: Path, session: str) -> Path:
    """A workspace as calcamp init makes it: Snakefile, profiles, and the link that --profile cluster finds."""
    shutil.copytree(campaign / "data", folder / "data", copy_function=os.link)
    make_workspace(folder, session)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    (folder / "cluster").symlink_to("profiles/cluster")
    return folder


def run(folder: Path, *options: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        ROOT / "Snakefile",
        "--configfile",
        "D11.yaml",
        *options,
    ]
    return subprocess.run(
        ["timeout", "-k", "10", "1500", *map(str, command)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def local(campaign, tmp_path_factory) -> Path:
    folder = workspace(campaign, tmp_path_factory.mktemp("local") / "work", SMALL)
    assert start(cwd=folder).wait(400) == 0
    return folder


def submitted(text: str) -> list[str]:
    return re.findall(r"rule (\w+)|group job (\w+)", text)


def submit_through_a_script(folder: Path, refused: int = 0) -> subprocess.CompletedProcess:
    """The session through profile cluster-generic, with a submit command that runs the job at once.

    The first `refused` submissions fail.
    """
    pytest.importorskip(
        "snakemake_executor_plugin_cluster_generic", reason="the cluster extra is not installed"
    )
    submit = folder / "submit.sh"
    submit.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/submitted\n'
        f"[ $(wc -l < {folder}/submitted) -gt {refused} ] || {{ echo queue is full; exit 1; }}\n"
        'setsid sh "$1" > /dev/null 2>&1 &\necho $!\n'
    )
    submit.chmod(submit.stat().st_mode | stat.S_IXUSR)
    done = run(
        folder,
        *("--profile", "profiles/cluster-generic", "--cluster-generic-submit-cmd", str(submit)),
        *("--cluster-generic-cancel-cmd", "true", "--latency-wait", "60", "--jobs", "2"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_cluster_generic_gives_the_same_tables(campaign, local, tmp_path):
    """Two submissions refused: they are tried again, and the session is whole."""
    folder = workspace(campaign, tmp_path / "work", SMALL)
    submit_through_a_script(folder, refused=2)
    assert tables(folder, "DARK01") == tables(local, "DARK01")
    jobs = (folder / "submitted").read_text()
    assert (
        len(jobs.splitlines()) <= 2 + 6
    )  # a group per CCD, house-keeping, verdict, report: no gate, no summary
    assert "acquire" not in jobs


@pytest.mark.full
def test_cluster_generic_with_three_tests(campaign, finished, tmp_path):
    folder = workspace(campaign, tmp_path / "work", SESSION)
    submit_through_a_script(folder)
    for test in TESTS:
        assert tables(folder, test) == tables(finished, test), test
    jobs = (folder / "submitted").read_text()
    assert len(jobs.splitlines()) <= 6 * len(TESTS)
    assert "acquire" not in jobs


@pytest.mark.full
@pytest.mark.skipif(bool(slurm.why_not()), reason=slurm.why_not())
def test_slurm_gives_the_same_tables(campaign, finished, tmp_path):
    """Three tests through a real Slurm: groups per CCD, no gate submitted, tables byte by byte as in the local run."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the cluster extra is not installed")
    folder = workspace(campaign, tmp_path / "work", SESSION)
    with slurm.Slurm(tmp_path / "slurm"):
        done = run(
            folder,
            *("--profile", "cluster", "--slurm-no-account", "--slurm-status-command", "squeue"),
            *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
            *("--latency-wait", "15", "--jobs", "4"),
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        for test in TESTS:
            assert tables(folder, test) == tables(finished, test), test
        numbers = subprocess.run(
            ["squeue", "-h", "-t", "all", "-o", "%i %T"], capture_output=True, text=True, check=True
        )
        states = [line.split()[1] for line in numbers.stdout.splitlines()]
        assert states == ["COMPLETED"] * len(states)
        assert 5 * len(TESTS) <= len(states) <= 6 * len(TESTS)
        print(f"{sum(len(tables(folder, t)) for t in TESTS)} tables equal, {len(states)} submissions")
        again = snakemake("-n", cwd=folder)
        assert "Nothing to be done" in again.stdout + again.stderr
