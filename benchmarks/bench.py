"""``make bench``: wall, CPU, memory and bytes of each test at full size, beside the I/O floor.

Data are simulated once at full size into ``bench/`` and kept. Each test is run from raw frames to PDF by
Snakemake on 2 cores, in a session of its own, results removed before. The floor reads the same raw frames
into float32 and writes the bytes that the run wrote, with nothing else: what no software can go below.
"""

from __future__ import annotations

import argparse
import compileall
import csv
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import resources

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "bench"

#: Rows of the table: test, must and aim (wall s, raw to PDF on 2 cores).
ROWS = {
    "BIAS01": (20, 10),
    "DARK01": (12, 6),
    "COSMETICS00": (25, 12),
    "FOCUS00_800": (15, 8),
    "PTC02_730": (50, 25),
    # FLAT_STB, 45 frames, stands for the FLAT tests: the figures of 42 frames in proportion
    "FLAT_STB": (32, 16),
    "CHINJ01": (60, 30),
    "TP01": (120, 60),
}
#: Measured only when they are named, for 21 GB of frames: 276 and 327 frames, in proportion to the 72 of PTC02, 330 and
#: 510, in proportion to the 42 of FLAT02. BF01 reads the frames of PTC01: name both. 159 frames, prepared like the 72 of
#: PTC02; 12 frames, as DARK01.
LONG = {
    "PTC01": (192, 96),
    "BF01": (192, 96),
    "NL02": (227, 114),
    "FLAT02_730": (236, 118),
    "FLAT01": (364, 182),
    "PSF01_800": (110, 55),
    "PSFLUX00_800": (12, 6),
}

SESSION = """\
session: {name}
block: NOSTROMO
mode: aim
check_only: {check_only}
data: {{root: data, day_folders: [12_Mar_19]}}
results: results
tests:
  {test}: {{do: all}}
"""
ALL = "session: ALL\nblock: NOSTROMO\nmode: aim\ndata: {root: data, day_folders: [12_Mar_19]}\nresults: results\ntests:\n"


def make_data(tests: list[str]) -> None:
    """Simulate all tests at full size, once."""
    text = ALL + "".join(f"  {test}: {{do: all}}\n" for test in dict.fromkeys(tests))
    made = FOLDER / "ALL.yaml"
    if made.is_file() and made.read_text() == text and (FOLDER / "data.done").is_file():
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    made.write_text(text)
    command = [
        Path(sys.executable).parent / "calcamp",
        "simulate",
        "ALL.yaml",
        "--into",
        "data",
        "--seed",
        "3",
        "--jobs",
        "2",
        # Covariances cost the same whatever they are: flats without the brighter-fatter effect are made faster.
        "--set",
        "flat.steps=1",
    ]
    subprocess.run(command, cwd=FOLDER, check=True)
    (FOLDER / "data.done").touch()


def frames_of(manifest: dict) -> list[Path]:
    return [
        Path(e["day_folder"]) / f["name"] for e in manifest["exposures"] for f in e["files"].values() if f
    ]


def floor(frames: list[Path], bytes_out: int) -> tuple[float, float]:
    """Wall and CPU seconds to read `frames` into float32 and write `bytes_out`, one process, warm cache."""
    import numpy as np

    scratch = FOLDER / "floor.bin"
    start, cpu = time.perf_counter(), time.process_time()
    for path in frames:
        np.frombuffer(path.read_bytes(), ">i2", offset=5760, count=4172 * 4238).astype(np.float32)
    block = os.urandom(1 << 20)
    with scratch.open("wb") as stream:
        for _ in range(bytes_out >> 20):
            stream.write(block)
    spent = time.perf_counter() - start, time.process_time() - cpu
    scratch.unlink()
    return spent


def run(test: str, check_only: bool = False) -> dict:
    """One session of one test, results removed first."""
    import json

    name = f"{test}{'_CHECK' if check_only else ''}"
    (FOLDER / f"{name}.yaml").write_text(
        SESSION.format(name=name, test=test, check_only=str(check_only).lower())
    )
    results = FOLDER / "results" / name
    shutil.rmtree(results, ignore_errors=True)
    shutil.rmtree(FOLDER / ".snakemake", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-s",
        ROOT / "Snakefile",
        "--workflow-profile",
        ROOT / "profiles" / "default",
    ]
    # As installed by pip: compiled once, not by every process anew.
    compileall.compile_dir(ROOT / "src", quiet=1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "-c2", "--configfile", f"{name}.yaml"],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    steps, rss = {}, 0.0
    for path in sorted((results / "benchmarks").glob("*.tsv")):
        row = next(csv.DictReader(path.open(), delimiter="\t"))
        step = (
            path.stem.removeprefix(f"{test}_")
            .removeprefix("ccd1_")
            .removeprefix("ccd2_")
            .removeprefix("ccd3_")
        )
        steps.setdefault(step, []).append(float(row["s"]))
        rss = max(rss, float(row["max_rss"]) if row["max_rss"] not in ("NA", "-") else 0.0)
    manifest = json.loads((results / test / "manifest.json").read_text())
    return {
        "test": name,
        "frames": frames_of(manifest),
        "wall": wall,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "rss": rss,
        "written": sum(
            p.stat().st_size
            for p in results.rglob("*")
            if p.is_file() and not p.is_symlink() and "products" not in p.relative_to(results).parts[1:2]
        ),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("tests", nargs="*", default=list(ROWS), help="tests to measure")
    args = parser.parse_args()
    limits = ROWS | LONG
    make_data([*ROWS, *args.tests] if set(args.tests) <= set(ROWS) else args.tests)
    lines = [
        "| test | frames | wall s | must | aim | CPU s | peak MB | written MB | floor s | whole/floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    detail, asked = [], []
    for test in args.tests:
        for check_only in (False, True):
            got = run(test, check_only)
            count = len(got["frames"])
            must, aim = (0.25 * count + 3, 0.12 * count + 3) if check_only else limits[test]
            low, _ = floor(got["frames"], got["written"])
            lines.append(
                f"| {test}{' checks only' if check_only else ''} | {count} | {got['wall']:.1f} | {must:g} | {aim:g} | {got['cpu']:.1f} "
                f"| {got['rss']:.0f} | {got['written'] / 1e6:.0f} | {low:.2f} | {got['wall'] / low:.1f} |"
            )
            print(lines[-1], flush=True)
            detail += [
                f"| {got['test']} {step} | {len(t)} | {min(t):.2f} | {max(t):.2f} | {sum(t):.2f} |"
                for step, t in got["steps"].items()
            ]
            asked += [] if check_only else resources.rows(FOLDER / f"{test}.yaml")
    text = "\n".join(
        [
            "# What things cost",
            "",
            "Full size, 2 cores, raw to PDF, Snakemake's start included, warm file cache.",
            "",
            *lines,
            "",
            "| step | jobs | fastest s | slowest s | sum s |",
            "|---|---|---|---|---|",
            *detail,
            "",
            *resources.table(asked),
            "",
        ]
    )
    (FOLDER / "table.md").write_text(text)
    print(text)
    for row in resources.exceeded(asked):
        print(f"more than asked for: {row}", file=sys.stderr)


if __name__ == "__main__":
    main()
