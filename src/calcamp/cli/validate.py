"""``calcamp validate``: is a file right, and what would it do?"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

#: Minutes and prepared bytes are told before a run: seconds of one core per full-size frame and CCD, by sub-task.
SECONDS_PER_FRAME = {"check": 0.12, "prep": 0.12, "basic": 0.3, "meta": 0.3}
FULL_SIZE_PIXELS = 4172 * 4238


@app.command()
def validate(
    path: Annotated[
        Path, typer.Argument(help="session, block, chamber, limits or detector YAML, or a workspace")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Check a file with line and remedy for each fault; of a session, say in words what would run.

    Exit 0: right. Exit 2: something must be corrected.

    Example:  calcamp validate config/sessions/D11.yaml
    """
    if path.is_dir():
        raise typer.Exit(_workspace(path))
    found = _file(path)
    if as_json:
        print(json.dumps(found, indent=1, default=str))
        return
    for line in found["words"]:
        print(line)


def _kind(path: Path) -> str:
    """What a YAML file holds, from its keys."""
    from calcamp.config.errors import ConfigError
    from calcamp.config.yamlfile import read_yaml

    data = read_yaml(path).data
    keys = set(data) if isinstance(data, dict) else set()
    for kind, marks in (
        ("session", {"tests"}),
        ("block", {"block", "offsets"}),
        ("limits", {"limits"}),
        ("chamber", {"chamber"}),
        ("detector", {"image_columns"}),
        ("session", {"session"}),
        ("block", {"block"}),
    ):
        if marks <= keys:
            return kind
    raise ConfigError(
        path,
        1,
        "",
        "neither a session, block, chamber, limits nor detector file",
        "a session has the keys session, block, data, results, tests; a block has block, chamber, offsets",
    )


def _file(path: Path) -> dict:
    """Check one file; what it says in words."""
    from calcamp.config.block import Block
    from calcamp.config.chamber import Chamber
    from calcamp.config.detector import DetectorFile
    from calcamp.config.limits import Limits

    kind = _kind(path)
    if kind == "session":
        return _session(path)
    model = {"block": Block, "chamber": Chamber, "limits": Limits, "detector": DetectorFile}[kind].load(path)
    words = [f"{path}: {kind} file, nothing to correct"]
    if kind == "block":
        words.append(
            f"block {model.block}, chamber {model.chamber}, detector {model.detector}; " + _serials(model)
        )
        words += [line for p in _products(model.product_paths()) for line in [_product_words(p)]]
    return {"kind": kind, "words": words}


def _serials(block) -> str:
    return "serials " + ", ".join(f"{key} {value}" for key, value in block.serials.items())


def _products(named: dict) -> list[tuple[str, str]]:
    """(kind, path) of every product file named."""
    found = []

    def walk(kind, value):
        if isinstance(value, str):
            found.append((kind, value))
        elif isinstance(value, dict):
            for item in value.values():
                walk(kind, item)

    for kind, value in named.items():
        walk(kind, value)
    return found


def _product_words(product: tuple[str, str]) -> str:
    kind, path = product
    if not Path(path).is_file():
        return f"  {kind}: {path}: NOT FOUND"
    days = (time.time() - Path(path).stat().st_mtime) / 86400
    return f"  {kind}: {path}, {days:.0f} days old"


def _session(path: Path) -> dict:
    """Check a session and say what would run."""
    from calcamp.campaign import plan
    from calcamp.campaign.acquisition import look_at_log
    from calcamp.campaign.duration import test_minutes

    planned = plan.load([path])
    planned.refuse_absent_data()
    words = [
        f"{path}: session {planned.session.session} of block {planned.block.block}, chamber {planned.chamber.chamber}, "
        f"detector {planned.detector.name}, {planned.session.mode} mode; nothing to correct",
        _serials(planned.block),
        f"results go to {planned.results.root}",
    ]
    scale = planned.detector.ccd_shape[0] * planned.detector.ccd_shape[1] / FULL_SIZE_PIXELS
    tests, work, space = [], 0.0, 0.0
    for name, item in planned.tests.items():
        declared = sum(c.frames for c in planned.columns(name))
        look = look_at_log(planned.gate(name), planned.structure(name))
        obsids = [logged.obsid for logged, _, _ in look.assigned]
        found = {
            "found": len(obsids),
            "missing": declared - len(obsids),
            "obsids": [obsids[0], obsids[-1]] if obsids else None,
        }
        work += sum(SECONDS_PER_FRAME.get(s, 0.3) * scale for s in item.subtasks) * declared * 3 / 60
        prepared = 3 * declared * 8 * FULL_SIZE_PIXELS * scale / 1e9 if "prep" in item.subtasks else 0.0
        space += prepared
        tests.append({"test": name, "subtasks": list(item.subtasks), "declared": declared, **found})
        words.append(
            f"{name}: {', '.join(s for s in item.subtasks if s != 'hk')}; {declared} exposures expected, "
            f"{found['found']} found{' (' + '-'.join(map(str, found['obsids'])) + ')' if found['obsids'] else ''}"
            f"{', ' + str(found['missing']) + ' missing' if found['missing'] else ''}"
            f"; {test_minutes(planned.columns(name)):.1f} min of acquisition"
        )
        for product in sorted(
            {
                (k, v["path"])
                for ccd in (1, 2, 3)
                for s in item.subtasks
                for k, v in planned.products(name, s, ccd).items()
                if "path" in v
            }
        ):
            words.append(_product_words(product))
    words.append(
        f"about {max(work / 2, 0.1):.1f} min of analysis on 2 cores, {space:.1f} GB of prepared images"
    )
    return {
        "kind": "session",
        "session": planned.session.session,
        "tests": tests,
        "minutes": work / 2,
        "gigabytes": space,
        "words": words,
    }


def _workspace(folder: Path) -> int:
    """Check every YAML and link of a workspace; exit status."""
    faults, seen = [], 0
    for link in sorted(p for p in folder.iterdir() if p.is_symlink() and not p.exists()):
        faults.append(f"{link}: broken link to {link.readlink()}; mount the disk, or make the link again")
    for path in sorted(
        {*folder.glob("*.yaml"), *folder.glob("config/**/*.yaml"), *folder.glob("ANALYSIS/**/*.yaml")}
    ):
        if "profiles" in path.parts or ".snakemake" in path.parts:
            continue
        seen += 1
        try:
            found = _file(path)
        except Exception as error:
            if not getattr(error, "is_input_error", False):
                raise
            faults.append(str(error))
            continue
        print("\n".join(found["words"]))
        if found["kind"] == "block":
            faults += [f"{path}: a product is missing:{w}" for w in found["words"] if "NOT FOUND" in w]
            faults += [
                f"{path}: hardware: a serial is still a placeholder; put in the real one"
                for w in found["words"]
                if "XX" in w
            ]
    from calcamp.campaign import workspace

    if workspace.is_workspace(folder):
        faults += [str(problem) for problem in workspace.problems(folder)]
    faults = list(dict.fromkeys(line for fault in faults for line in fault.splitlines()))
    for line in faults:
        print(line, file=sys.stderr)
    if not seen:
        print(
            f"{folder}: no YAML files here or in config/; make a workspace with 'calcamp init'",
            file=sys.stderr,
        )
        return 2
    print(f"{seen} files, {len(faults)} fault(s)")
    return 2 if faults else 0
