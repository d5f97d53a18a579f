"""What must hold for someone else's machine: a wheel that runs, a family that only adds files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

from tests.workflow.conftest import ROOT, calcamp, make_workspace, planned_jobs, snakemake

DUMMY = {
    "src/calcamp/campaign/dummy.py": """
from calcamp.campaign.core import CHECK, HK, Column, Family, Subtask, Test, prep

FAMILY = Family("dummy", (Test("DUMMY01", "DUMMY01", "dummy",
    lambda chamber: [Column(2, {"test": "BIAS01", "shuttr": 0, "comments": "BIAS"})],
    title="A family for a test", surrogate="BIAS01",
    subtasks=(HK, CHECK, prep(), Subtask("count", after=("check",)))),))
""",
    "src/calcamp/analysis/dummy.py": """
def count(frames):
    return len(frames)
""",
    "src/calcamp/steps/dummy.py": """
import sys
from calcamp.steps import runner

def count(ctx):
    from calcamp.analysis.dummy import count
    n = count([ctx.prepared(e) for e in ctx.readable()])
    ctx.write_table("dummy", {"ccd": [ctx.ccd], "frames": [n]})

if __name__ == "__main__":
    sys.exit(runner.run("dummy", {"count": count}))
""",
    "src/calcamp/report/dummy.py": """
from calcamp.report.base import Section, Text

def sections(data):
    return [Section("A dummy section", [Text("counted by the dummy family")])]
""",
    "rules/dummy.smk": """
use rule check as dummy_count with:
    input:
        manifest="<results>/{test}/manifest.json",
        after=lambda wc: P.after(wc.test, "count", wc.ccd),
    output:
        "<results>/{test}/ccd{ccd}/count/count.json",
    log:
        "<logs>/{test}_ccd{ccd}_count.log",
    benchmark:
        "<benchmarks>/{test}_ccd{ccd}_count.tsv"
    wildcard_constraints:
        test=P.pattern("dummy", "count"),
    params:
        step="dummy",
        subtask="count",
        job=lambda wc: P.job(wc.test, "count", wc.ccd),
        attempt=lambda wc: P.attempt(wc.test, "count", wc.ccd),
""",
}


def test_a_new_family_adds_five_files_and_no_other_line(tmp_path, campaign):
    tree = tmp_path / "calcamp"
    for name in ("src", "rules", "config", "profiles"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    shutil.copy(ROOT / "Snakefile", tree)
    for name, text in DUMMY.items():
        (tree / name).write_text(text.lstrip())
    folder = tmp_path / "work"
    make_workspace(folder)
    (folder / "D11.yaml").write_text(
        "session: D11\nblock: NOSTROMO\nmode: aim\n"
        f"data: {{root: {campaign / 'data'}, day_folders: [12_Mar_19]}}\nresults: results\n"
        "tests:\n  DUMMY01: {do: all, obsids: [1000, 1001]}\n"
    )
    run = snakemake("-c2", cwd=folder, snakefile=tree / "Snakefile", pythonpath=tree / "src")
    assert run.returncode == 0, run.stdout + run.stderr
    results = folder / "results" / "D11" / "DUMMY01"
    assert (results / "tables" / "dummy.ecsv").read_text().rstrip().endswith("3 2")
    assert "counted by the dummy family" in (results / "DUMMY01_report.html").read_text()


def test_the_wheel_gives_a_working_workflow(tmp_path):
    source = tmp_path / "source"
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in names.stdout.splitlines():
        if name.startswith(
            ("src/", "rules/", "config/", "profiles/", "Snakefile", "pyproject", "README", "LICENSE")
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, source / name)
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(source),
    ]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel = next(tmp_path.glob("calcamp-*.whl"))
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        assert "calcamp/workflow/Snakefile" in archive.namelist()
        archive.extractall(installed)
    folder = tmp_path / "work"
    make_workspace(folder)
    snakefile = installed / "calcamp" / "workflow" / "Snakefile"
    preview = snakemake("-n", cwd=folder, snakefile=snakefile, pythonpath=installed)
    assert preview.returncode == 0, preview.stdout + preview.stderr
    assert planned_jobs(preview.stdout + preview.stderr)["acquire"] == 3


def test_every_command_explains_itself():
    shown = calcamp("--help", cwd=ROOT)
    assert shown.returncode == 0
    commands = [line.split()[0] for line in shown.stdout.split("Commands:")[1].splitlines() if line.strip()]
    assert {"validate", "run", "status", "verify", "simulate", "scripts"} <= set(commands)
    for command in commands:
        told = calcamp(command, "--help", cwd=ROOT)
        assert told.returncode == 0, command
        assert "Example" in told.stdout or command in ("chamber", "products", "sessions"), command
