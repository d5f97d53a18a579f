"""What the workflow itself costs: a waiting gate, a job, the preview, the time from last exposure to check report."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "bench" / "workflow"
BIN = Path(sys.executable).parent
PREVIEW_TESTS, DONE_TESTS = 40, 20

SESSION = """\
session: D11
block: NOSTROMO
mode: wait
check_only: {check_only}
data: {{root: data, day_folders: [12_Mar_19]}}
results: results
wait: {{poll_s: 0.1, settle_s: 0.5, timeout_h: 0.5}}
tests:
{tests}
"""


def workspace(tests: list[str], check_only: bool = True) -> None:
    """A fresh workspace with small CCDs."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "config" / "blocks").mkdir(parents=True)
    text = (ROOT / "config" / "blocks" / "NOSTROMO.yaml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith("detector:")]
    (FOLDER / "config" / "blocks" / "NOSTROMO.yaml").write_text(
        "\n".join([*kept, "detector: ccd273-mini", ""])
    )
    lines = "\n".join(f"  {test}: {{do: all}}" for test in tests)
    (FOLDER / "D11.yaml").write_text(SESSION.format(check_only=str(check_only).lower(), tests=lines))


def call(*command, **options) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(c) for c in command], cwd=FOLDER, capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done


def gate() -> tuple[float, float, float]:
    """(peak memory MB, CPU s to start, CPU s per hour of waiting at the poll of 5 s) of one waiting gate."""
    workspace(["BIAS01"])
    from calcamp.campaign import plan

    here = Path.cwd()
    os.chdir(FOLDER)
    planned = plan.load(["D11.yaml"], {})
    planned.write_run({})
    path = planned.plan_path("BIAS01").resolve()
    os.chdir(here)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "calcamp.steps.acquire",
            "--plan",
            path,
            "--into",
            FOLDER / "BIAS01" / "manifest.json",
        ],
        stdout=subprocess.DEVNULL,
    )

    def cpu() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    time.sleep(4)
    begun = cpu()
    time.sleep(20)
    later = cpu()
    status = Path(f"/proc/{process.pid}/status").read_text()
    process.kill()
    process.wait()
    polls = 20 / 0.1
    return int(status.split("VmHWM:")[1].split()[0]) / 1024, begun, (later - begun) / polls * 720


def job() -> tuple[float, float]:
    """(wall, CPU) seconds that Snakemake adds to a job: many jobs that do nothing, less the start with one of them."""
    spent = []
    for count in (1, 41):
        folder = FOLDER / f"jobs{count}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "Snakefile").write_text(
            f'rule all:\n    input: expand("{{n}}", n=range({count}))\n\nrule one:\n    output: "{{n}}"\n'
            '    log: "{n}.log"\n    benchmark: "{n}.tsv"\n    shell: "touch {output}"\n'
        )
        spent.append(timed("-d", folder, "-c1", "-q", snakefile=folder / "Snakefile"))
    return (spent[1][0] - spent[0][0]) / 40, (spent[1][1] - spent[0][1]) / 40


def timed(*options, snakefile: Path | None = None) -> tuple[float, float]:
    """(wall, CPU) seconds of a snakemake command, on the session where no other workflow is given."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    which = [snakefile] if snakefile else [ROOT / "Snakefile", "--configfile", "D11.yaml"]
    call(sys.executable, "-m", "snakemake", "-s", *which, *options)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def many_tests(count: int) -> list[str]:
    """Names of repeated tests, in all three kinds of the mini session."""
    return [f"{test}.{n}" for n in range(1, count) for test in ("BIAS01", "BIAS02", "DARK01")][:count]


def previews() -> list[tuple[str, tuple[float, float]]]:
    """What a dry-run costs: many tests before any data; fewer before data, with data, and all done."""
    workspace(many_tests(PREVIEW_TESTS), check_only=False)
    found = [("snakemake --version: the floor of the next rows", timed("--version"))]
    found.append((f"preview of {PREVIEW_TESTS} tests", timed("-n", "-q")))
    workspace(many_tests(DONE_TESTS), check_only=False)
    found.append((f"preview of {DONE_TESTS} tests, no data yet", timed("-n", "-q")))
    call(BIN / "calcamp", "simulate", "D11.yaml", "--into", "data", "--jobs", 2)
    found.append((f"preview of {DONE_TESTS} tests, data there", timed("-n", "-q")))
    aim = ("--config", "mode=aim", "-c2")
    wall, cpu = timed("-q", "all", *aim)
    found.append((f"{DONE_TESTS} tests of mini frames, all analysed on 2 cores", (wall, cpu)))
    found.append((f"nothing to be done, {DONE_TESTS} finished tests", timed(*aim)))
    return found


def report_after_last_exposure(speed: float = 60.0) -> tuple[float, float]:
    """(seconds from the last frame of BIAS01 to its check report, of them settling) while BIAS02 is taken."""
    workspace(["BIAS01", "BIAS02"])
    call(BIN / "calcamp", "simulate", "D11.yaml", "--into", "made", "--jobs", 2)
    run = subprocess.Popen(
        [BIN / "calcamp", "run", "D11.yaml", "-c2"],
        cwd=FOLDER,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (FOLDER / "results/D11/BIAS02/waiting.json").is_file():
        time.sleep(0.1)
    call(
        BIN / "calcamp",
        "simulate",
        "D11.yaml",
        "--live",
        "--speed",
        speed,
        "--from",
        "made/12_Mar_19",
        "--into",
        "data",
    )
    if run.wait(600):
        raise SystemExit("the session failed")
    folder = FOLDER / "results" / "D11" / "BIAS01"
    manifest = json.loads((folder / "manifest.json").read_text())
    last = manifest["exposures"][-1]
    taken = max((FOLDER / "data/12_Mar_19" / f["name"]).stat().st_mtime for f in last["files"].values())
    report = (folder / "BIAS01_report.pdf").stat().st_mtime
    return report - taken, (folder / "manifest.json").stat().st_mtime - taken


def main() -> None:
    memory, start, hourly = gate()
    lines = [
        "| the workflow itself | figure |",
        "|---|---|",
        f"| load of the machine before | {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores |",
        f"| a waiting gate, peak memory | {memory:.1f} MB |",
        f"| a waiting gate, CPU to start / per hour | {start:.2f} s / {hourly:.1f} s |",
        "| added to a job by Snakemake | {1:.0f} ms of CPU, {0:.0f} ms |".format(*(1000 * t for t in job())),
        *(f"| {what} | {cpu:.1f} s of CPU, {wall:.1f} s |" for what, (wall, cpu) in previews()),
    ]
    report, settled = report_after_last_exposure()
    lines.append(
        f"| last exposure to check report, 10 mini frames | {report:.1f} s, of them {settled:.1f} s to the gate's opening |"
    )
    text = "\n".join([*lines, ""])
    (FOLDER.parent / "workflow.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
