"""``calcamp verify``: is this session whole? Inputs and products re-hashed, missing targets named."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


def problems_of(folder: Path) -> tuple[list[str], int]:
    """Problems of one test's results folder, and the number of files that were read again."""
    from calcamp.data.files import read_json, sha256

    problems, read = [], 0
    manifest_path = folder / "manifest.json"
    if not manifest_path.is_file():
        return [f"{manifest_path}: missing; run the session again"], 0
    manifest = read_json(manifest_path)
    if manifest["status"] != "complete":
        problems.append(f"{manifest_path}: {manifest['status']}: {manifest['reason']}")
    for exposure in manifest["exposures"]:
        for ccd, entry in exposure["files"].items():
            if not entry:
                problems.append(f"OBSID {exposure['obsid']} CCD{ccd}: no raw frame was found")
                continue
            path = Path(exposure["day_folder"]) / entry["name"]
            if not path.is_file():
                problems.append(f"{path}: raw frame is gone")
                continue
            read += 1
            if sha256(path) != entry["sha256"]:
                problems.append(f"{path}: content is not what was analysed")
    records = sorted([*folder.glob("ccd[123]/*/*.json"), *folder.glob("block/*/*.json")])
    for path in records:
        if path.stem != path.parent.name:
            continue
        record = read_json(path)
        if record["status"] != "done":
            problems.append(f"{path}: {record['status']}: {record['reason']}")
        for name, digest in record.get("files", {}).items():
            file = path.parent / name
            read += 1
            if not file.is_file():
                problems.append(f"{file}: missing")
            elif sha256(file) != digest:
                problems.append(f"{file}: changed since it was made")
    for target in (
        folder / "verdict.json",
        folder / f"{folder.name}_report.pdf",
        folder / f"{folder.name}_report.html",
    ):
        if not target.is_file():
            problems.append(f"{target}: missing")
    return problems, read


@app.command()
def verify(
    results: Annotated[Path, typer.Argument(help="results of a session, or of one test")],
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Hash the raw frames and products of a session again, and name what is missing or has changed.

    Exit 0: the session is whole. Exit 1: it is not.

    Example:  calcamp verify results_atCALDATA/D11
    """
    from calcamp.data.files import read_json

    if not results.is_dir():
        raise typer.BadParameter(
            f"{results}: no such folder; give the results of a session, e.g. results/D11"
        )
    run = results / "config" / "run.json"
    if run.is_file():
        folders = [results / name for name in read_json(run)["tests"]]
    elif (results / "manifest.json").is_file():
        folders = [results]
    else:
        raise typer.BadParameter(
            f"{results}: neither a session's results (config/run.json) nor a test's (manifest.json)"
        )
    report = {}
    total = 0
    for folder in folders:
        report[folder.name], read = problems_of(folder)
        total += read
    if as_json:
        print(json.dumps({"files": total, "problems": report}, indent=1))
    else:
        for test, found in report.items():
            print(f"{test}: {'whole' if not found else f'{len(found)} problem(s)'}")
            for line in found:
                print(f"  {line}", file=sys.stderr)
        print(f"{total} files read again")
    raise typer.Exit(1 if any(report.values()) else 0)
