"""``make demo``: the practical case of block NOSTROMO, from simulated raw frames to PDF reports.

Makes the workspace ``demo/`` with mini CCDs (a quarter of the rows and columns, full scans), follows session
D00 while it is played, makes the data of session D11, previews and runs it, and compares what was measured
with what the simulator put in.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "demo"


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def call(*command: str) -> None:
    """Run a command in the workspace, shown as typed; stop when it fails."""
    print("$ " + " ".join(command), flush=True)
    program = Path(sys.executable).parent / command[0]
    if subprocess.run([program, *command[1:]], cwd=FOLDER, check=False).returncode:
        raise SystemExit(f"the demo stopped at: {' '.join(command)}")


def workspace() -> None:
    """A fresh workspace: the session of the cook-book, the block with mini CCDs, the workflow."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for kind in ("blocks", "chambers"):
        (FOLDER / "config" / kind).mkdir(parents=True)
    for name in ("D00.yaml", "D11.yaml"):
        shutil.copy(ROOT / "examples" / "nostromo" / name, FOLDER / name)
    text = (ROOT / "config" / "blocks" / "NOSTROMO.yaml").read_text()
    kept = [line for line in text.splitlines() if not line.startswith("detector:")]
    (FOLDER / "config" / "blocks" / "NOSTROMO.yaml").write_text(
        "\n".join([*kept, "detector: ccd273-mini", ""])
    )
    for name in ("Snakefile", "rules", "profiles"):
        (FOLDER / name).symlink_to(ROOT / name)


def results(test: str) -> Path:
    return FOLDER / "results_atCALDATA" / "D11" / test


def verdict(test: str) -> dict:
    return json.loads((results(test) / "verdict.json").read_text())


def compare(truth: dict) -> list[tuple[str, str, list[tuple[float, float, float]]]]:
    """(test, quantity and unit, [(truth, measured, error) of each channel]).

    The simulator gives every channel its own gain; the analysis has only the nominal one. Electrons are
    therefore compared after taking the nominal gain out again.
    """
    channels = {(c["ccd"], c["quadrant"]): c for c in truth["channels"]}
    nominal = truth["detector"]["nominal_gain"]
    darks = [e for e in truth["exposures"] if e["test"] == "DARK01"]
    noise, dark = [], []
    for item in verdict("BIAS02")["headline"]:
        # The white part: read_noise itself holds the slow wander of the offset too.
        if item["quantity"] == "noise_white" and item["region"] == "img":
            channel = channels[item["ccd"], item["quadrant"]]
            noise.append((channel["read_noise_adu"], item["value"], item["err"]))
    for item in verdict("DARK01")["headline"]:
        if item["quantity"] == "dark_current" and item["value"] is not None and not item["is_limit"]:
            channel = channels[item["ccd"], item["quadrant"]]
            warmer = sum(e["dark_factor"][str(item["ccd"])] for e in darks) / len(darks)
            scale = channel["gain_e_adu"] / nominal
            err = math.hypot(item["err"], item["systematic"] or 0.0)
            dark.append((channel["dark_e_h"] * warmer, item["value"] * scale, err * scale))
    return [
        ("BIAS02", "read noise, white [ADU]", noise),
        ("CHINJ02", "injected level [e-]", injected(truth, channels)),
        ("CHINJ02", "threshold in IDL [V]", thresholds(channels)),
        ("TP01", "emission time, ln(tau/us)", traps(truth, channels)),
        ("DARK01", "dark current [e-/px/h]", dark),
        ("DARK01", "hot pixels [e-/s]", hot_pixels(channels, darks)),
    ]


def injected(truth: dict, channels: dict) -> list[tuple[float, float, float]]:
    """(true, measured, error) of the level at the nominal setting, of all channels.

    Nothing corrects the non-linearity of the chain yet: the true level is taken as the chain shows it.
    """
    from calcamp.data.tables import table_rows
    from calcamp.simulate.plugins.flat import FDR, nonlinearity

    known = {(f["obsid"], f["ccd"], f["quadrant"]): f.get("injection_e") for f in truth["frames"]}
    pairs = []
    for row in table_rows(results("CHINJ02") / "tables" / "uniformity.ecsv"):
        channel = channels[row["ccd"], row["quadrant"]]
        gain, level = channel["gain_e_adu"], known[row["obsid"], row["ccd"], row["quadrant"]]
        shown = level * (1 + float(nonlinearity(level / gain / FDR, channel["params"]["nonlinearity"])) / 100)
        pairs.append((shown, row["level"] * gain, row["level_err"] * gain))
    return pairs


def thresholds(channels: dict) -> list[tuple[float, float, float]]:
    """(true, measured, error) of the drain voltage at which half of the charge is injected."""
    from calcamp.simulate.plugins.injection import characteristics

    return [
        (
            characteristics(channels[h["ccd"], h["quadrant"]]["params"]["injection"])["threshold_idl"],
            h["value"],
            h["err"],
        )
        for h in verdict("CHINJ02")["headline"]
        if h["quantity"] == "injection_threshold" and h["value"] is not None
    ]


def traps(truth: dict, channels: dict) -> list[tuple[float, float, float]]:
    """(true, measured, error) of ln tau of the traps at 8 sigma or more that are alone in their pixel."""
    import numpy as np

    from calcamp.data.tables import table_rows

    arrays = np.load(FOLDER / "atCALDATA" / "data_truth" / truth["arrays"])
    known: dict[tuple, list[float]] = {}
    for (ccd, quadrant), channel in channels.items():
        own = channel["params"].get("traps", {})  # long arrays are in the NPZ
        row, column, tau = (
            own[name] if name in own else arrays[f"ccd{ccd}_{quadrant}_traps_{name}"]
            for name in ("row", "column", "tau_us")
        )
        for r, c, t in zip(row, column, tau, strict=True):
            known.setdefault((ccd, quadrant, int(r), int(c)), []).append(float(t))
    pairs = []
    for trap in table_rows(results("TP01") / "tables" / "traps.ecsv"):
        here = known.get((trap["ccd"], trap["quadrant"], trap["row"], trap["image_column"]), [])
        if len(here) == 1 and trap["status"] == "ok" and trap["significance"] >= 8:
            pairs.append((math.log(here[0]), math.log(trap["tau"]), trap["tau_err"] / trap["tau"]))
    return pairs


def hot_pixels(channels: dict, darks: list[dict]) -> list[tuple[float, float, float]]:
    """(true rate, measured rate, error) of the hot pixels above 1 e-/s that were found."""
    from calcamp.data.tables import table_rows

    rows = table_rows(results("DARK01") / "tables" / "hot_pixels.ecsv")
    found = {(r["ccd"], r["quadrant"], r["row"], r["column"]): r for r in rows}
    pairs = []
    for (ccd, quadrant), channel in channels.items():
        warmer = sum(e["dark_factor"][str(ccd)] for e in darks) / len(darks)
        for row, column, rate in channel["hot_pixels"]:
            item = found.get((ccd, quadrant, row, column))
            if rate >= 1.0 and item:
                gain = channel["gain_e_adu"]
                pairs.append((rate * warmer, item["rate_adu"] * gain, item["rate_adu_err"] * gain))
    return pairs


def show(truth: dict) -> None:
    print(
        f"{'test':8s} {'quantity':26s} {'n':>4s} {'truth':>9s} {'measured':>9s} {'mean pull':>10s} {'rms of pulls':>13s}"
    )
    for test, quantity, pairs in compare(truth):
        pulls = [(value - true) / err for true, value, err in pairs]
        mean = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)] if pairs else [math.nan] * 3
        centre = sum(pulls) / len(pulls) if pulls else math.nan
        rms = math.sqrt(sum(p * p for p in pulls) / len(pulls)) if pulls else math.nan
        print(
            f"{test:8s} {quantity:26s} {len(pairs):4d} {mean[0]:9.4f} {mean[1]:9.4f} {centre:+10.2f} {rms:13.2f}"
        )


def run_session() -> None:
    call("snakemake", "-c2", "--quiet", "rules", "host", "--configfile", "D11.yaml")


def follow_session() -> None:
    """Session D00 in wait mode, while its acquisition is played; says when the first report was there."""
    call(
        "calcamp", "simulate", "D00.yaml", "--into", "atCALDATA/made", "--first-obsid", "17253", "--jobs", "2"
    )
    command = ["calcamp", "run", "D00.yaml", "-c2", "--quiet", "all"]
    print("$ " + " ".join(command) + " &", flush=True)
    run = subprocess.Popen([Path(sys.executable).parent / command[0], *command[1:]], cwd=FOLDER)
    results = FOLDER / "results_atCALDATA" / "D00"
    try:
        while not (results / "FOCUS00_800" / "waiting.json").is_file() and run.poll() is None:
            time.sleep(0.1)
        call(
            *("calcamp", "simulate", "D00.yaml", "--live", "--speed", "60"),
            *("--from", "atCALDATA/made/11_Mar_19", "--into", "atCALDATA/data"),
        )
        call("calcamp", "status", "D00.yaml")
        if run.wait(600):
            raise SystemExit("session D00 failed")
    finally:
        run.terminate()
    last = max(p.stat().st_mtime for p in (FOLDER / "atCALDATA" / "data" / "11_Mar_19").glob("*.fits"))
    report = (results / "FOCUS00_800" / "FOCUS00_800_report.pdf").stat().st_mtime
    print(f"The report of FOCUS00_800 was there {report - last:.1f} s after its last exposure.")
    call("calcamp", "status", "D00.yaml")


def main() -> None:
    started = time.monotonic()
    say("1. A workspace for block NOSTROMO: session D11 of the cook-book's practical case, mini CCDs")
    workspace()
    say(
        "2. Session D00, the focus, in wait mode while the acquisition is played, 60 times as fast as real; into the chamber profile"
    )
    follow_session()
    call("calcamp", "chamber", "set-focus", "B_NOSTROMO", "results_atCALDATA/D00/FOCUS00_800")
    say("3. The acquisition of session D11, simulated")
    call("calcamp", "simulate", "D11.yaml", "--into", "atCALDATA/data", "--seed", "14", "--jobs", "2")
    say("4. What would run")
    call("calcamp", "validate", "D11.yaml")
    call("snakemake", "-n", "--quiet", "rules", "progress", "host", "--configfile", "D11.yaml")
    say("5. Session D11 in aim mode")
    run_session()
    call("calcamp", "status", "D11.yaml")
    say(
        "6. The master bias of BIAS01 becomes the block's; only DARK01 is done again, now free of the offset structure"
    )
    call("calcamp", "products", "promote", "results_atCALDATA/D11/BIAS01", "--kind", "bias")
    run_session()
    call("calcamp", "verify", "results_atCALDATA/D11")
    say("7. Truth and measurement, 12 channels")
    truth = json.loads((FOLDER / "atCALDATA" / "data_truth" / "D11_truth.json").read_text())
    show(truth)
    say(f"Done in {time.monotonic() - started:.0f} s. The reports:")
    for path in sorted((FOLDER / "results_atCALDATA").rglob("*.pdf")):
        print(f"  {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
