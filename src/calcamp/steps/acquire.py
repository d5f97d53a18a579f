"""The gate of a test: find its exposures in the EXP-LOG, list them in manifest.json.

``--plan`` is the plan file of the test, written when a run starts. In aim mode the gate looks once; in
wait mode it polls until the log shows the test complete and its files are whole. It ends well with
status ``complete`` or ``incomplete``; it fails only for faults of the programme.

Standard library only: a waiting gate costs a few MB and no CPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from calcamp.campaign.acquisition import (
    Look,
    files_missing,
    incomplete_reason,
    look_at_log,
    raw_file,
    settled,
)
from calcamp.data.files import InputError, read_json, sha256, write_json
from calcamp.detector.geometry import CCDS

MANIFEST_SCHEMA = 1


def manifest_of(gate: dict, look: Look, token: str, status: str, reason: str) -> dict:
    """The manifest, checksums of the raw frames included."""
    from concurrent.futures import ThreadPoolExecutor

    exposures, paths = [], []
    for logged, column, frame in look.assigned:
        folder = logged.folder
        files = {}
        for ccd in CCDS:
            row = logged.ccds.get(ccd)
            path = raw_file(folder, str(row["File_name"])) if row else None
            files[str(ccd)] = path and {
                "name": path.name,
                "size": path.stat().st_size,
                "mtime_ns": path.stat().st_mtime_ns,
            }
            if path:
                paths.append((files[str(ccd)], path))
        hk = sorted(folder.glob(f"HK_{logged.obsid}_*_ROE1.txt"))
        exposures.append(
            {
                "obsid": logged.obsid,
                "column": column,
                "frame": frame,
                "day_folder": str(folder),
                "log_row": {k: v for k, v in logged.values.items() if not k.startswith("_")},
                "hk": hk[0].name if len(hk) == 1 else None,
                "files": files,
            }
        )
    with ThreadPoolExecutor(2) as pool:  # hashing releases the interpreter lock
        for (entry, _), digest in zip(paths, pool.map(lambda item: sha256(item[1]), paths), strict=True):
            entry["sha256"] = digest
    obsids = [e["obsid"] for e in exposures]
    return {
        "schema": MANIFEST_SCHEMA,
        "test": gate["name"],
        "status": status,
        "reason": reason,
        "obsids": [min(obsids), max(obsids)] if obsids else None,
        "look": token,
        "rows_logged": look.rows_logged,
        "declared": look.alignment.declared,
        "exposures": exposures,
        "missing": look.alignment.missing,
        "unexpected": look.alignment.unexpected,
        "mismatches": look.alignment.mismatches,
        "messages": look.alignment.messages,
        "problems": look.problems,
    }


def wait(gate: dict, declared: dict) -> tuple[Look, str, str]:
    """Poll until the test is complete, overtaken, timed out or stopped; (look, status, reason)."""
    settle, poll = gate["settle_s"], gate["poll_s"]
    parent = os.getppid()
    grown = time.monotonic()
    state: tuple | None = None
    noted = 0.0
    while True:
        look = look_at_log(gate, declared)
        now_state = (look.rows_logged, len(look.assigned))
        if now_state != state:
            state, grown = now_state, time.monotonic()
        quiet = time.monotonic() - grown
        total = look.alignment.declared
        if look.alignment.complete and quiet >= settle and not files_missing(look) and settled(look, settle):
            return look, "complete", ""
        if Path(gate["stop_file"]).exists():
            return look, "incomplete", "stopped by the analyst"
        if os.getppid() != parent:
            raise SystemExit(7)  # the workflow has died: leave no orphan
        if quiet > gate["timeout_h"] * 3600:
            return (
                look,
                "incomplete",
                f"nothing new in the log for {gate['timeout_h']:g} h; {incomplete_reason(look)}",
            )
        if time.monotonic() - noted >= 60:
            noted = time.monotonic()
            last = look.assigned[-1][0].obsid if look.assigned else "-"
            print(
                f"waiting for {gate['name']}: {len(look.assigned)}/{total} frames, last OBSID {last}, silent {quiet / 60:.1f} min",
                flush=True,
            )
        time.sleep(poll)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m calcamp.steps.acquire", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--plan", required=True, type=Path, help="plan file of the test (config/plan/<TEST>.json)"
    )
    parser.add_argument("--look", default="0", help="counter that the workflow raises to look again")
    parser.add_argument("--into", required=True, type=Path, help="manifest.json to write")
    args = parser.parse_args(argv)
    plan = read_json(args.plan)
    gate, declared = plan["gate"], plan["structure"]
    try:
        if gate["mode"] == "wait":
            look, status, reason = wait(gate, declared)
        else:
            look = look_at_log(gate, declared)
            complete = look.alignment.complete
            status, reason = ("complete", "") if complete else ("incomplete", incomplete_reason(look))
    except InputError as error:
        print(f"calcamp: {error}", file=sys.stderr)
        return 2
    args.into.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.into, manifest_of(gate, look, args.look, status, reason))
    print(f"{gate['name']}: {status} {reason}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
