"""The line that a run shows on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from calcamp.cli.progress import Reader, sentence, wants_progress

OUTPUT = """\
Job stats:
job         count
--------  -------
acquire         2
check           3
total          10

Select jobs to execute...

[Sun Nov 22 11:23:36 2026]
localcheckpoint acquire:
    output: results/D11/DARK01/manifest.json
    jobid: 3
    wildcards: test=DARK01
DAG of jobs will be updated after completion.
[Sun Nov 22 11:23:37 2026]
Finished jobid: 3 (Rule: acquire)
1 of 10 steps (10%) done
[Sun Nov 22 11:23:37 2026]
localrule check:
    input: results/D11/DARK01/manifest.json
    jobid: 5
    reason: Missing output files: results/D11/DARK01/ccd1/check/check.json
    wildcards: test=DARK01, ccd=1
    priority: 50
[Sun Nov 22 11:23:38 2026]
localrule hk:
    jobid: 4
    wildcards: test=DARK01
"""
FAULT = """\
[Sun Nov 22 11:23:39 2026]
Error in rule check:
    message: None
    jobid: 5
    output: results/D11/DARK01/ccd1/check/check.json

Shutting down, this might take some time.
"""


def read(text: str, reader: Reader | None = None) -> tuple[Reader, list[str]]:
    reader = reader or Reader(iter(range(1000)).__next__)
    return reader, [said for line in text.splitlines(keepends=True) if (said := reader.feed(line))]


def test_jobs_and_what_is_being_done():
    reader, said = read(OUTPUT)
    assert said == []
    assert (reader.done, reader.total) == (1, 10)
    assert sentence(reader, {}, 2) == "1 of 10 jobs · check DARK01 CCD1, hk DARK01"
    waiting = {"BIAS01": {"frames": 3, "declared": 10, "left_min": 11.2}}
    assert sentence(reader, waiting, 2).endswith("hk DARK01 · waiting for BIAS01 3/10 · about 11 min left")
    reader, _ = read("Finished jobid: 5 (Rule: check)\n2 of 10 steps (20%) done\n", reader)
    assert sentence(reader, {}, 2).startswith("2 of 10 jobs · hk DARK01 · about 1 min left")


def test_errors_are_shown_whole():
    reader, _ = read(OUTPUT)
    _, said = read(FAULT, reader)
    assert said[0] == "Error in rule check:"
    assert said[-1].endswith("check.json")
    assert len(said) == 4


def test_options_that_ask_for_the_words_of_snakemake():
    assert wants_progress(["--config", "mode=wait", "--profile", "cluster"])
    assert not wants_progress(["-p"])
    assert not wants_progress(["--quiet=rules"])


def test_a_terminal_shows_one_line_and_the_count(tmp_path):
    """`follow` on a terminal of its own."""
    code = (
        "import io, sys\nfrom pathlib import Path\nfrom types import SimpleNamespace\n"
        "from calcamp.cli.progress import follow\n"
        "results = SimpleNamespace(test=lambda name: Path(name))\n"
        "follow(io.StringIO(sys.argv[1]), SimpleNamespace(tests={}, results=results), 2)\n"
    )
    text = OUTPUT + FAULT + "10 of 10 steps (100%) done\n"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, text],
        stdout=theirs,
        stdin=theirs,
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass
    assert process.wait(60) == 0
    assert "Error in rule check" in shown.decode()
    assert "10 of 10 jobs done" in shown.decode()
    assert "Select jobs" not in shown.decode()
