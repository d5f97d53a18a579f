"""``calcamp status``: where a session stands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


def collect(planned) -> dict:
    """State of every test of a plan, from the files on disk."""
    from calcamp.data.alive import is_dead, is_running
    from calcamp.data.files import read_json

    run_path = planned.results.root / "config" / "run.json"
    state = read_json(run_path) if run_path.is_file() else {}
    tests = []
    for name in planned.tests:
        manifest = planned.results.manifest(name)
        records = [Path(p) for p in planned.records(name)]
        done = [read_json(p) for p in records if p.is_file()]
        verdict = planned.results.verdict(name)
        declared = sum(c.frames for c in planned.columns(name))
        item = {
            "test": name,
            "frames": [0, declared],
            "acquired": "-",
            "obsids": None,
            "subtasks": [sum(r["status"] == "done" for r in done), len(records)],
            "crashed": [_name(record) for record in done if record["status"] == "crashed"],
            "verdict": None,
            "flags": [],
            "report": None,
        }
        if manifest.is_file():
            found = read_json(manifest)
            item.update(
                acquired=found["status"], obsids=found["obsids"], frames=[len(found["exposures"]), declared]
            )
        else:
            item.update(_waiting(planned, name))
        if verdict.is_file():
            judged = read_json(verdict)
            item.update(verdict=judged["verdict"], flags=sorted({f["name"] for f in judged["flags"]}))
        if planned.results.report(name).is_file():
            item["report"] = str(planned.results.report(name))
        tests.append(item)
    running = "running" if is_running(state) else "dead (killed)" if is_dead(state) else "not running"
    return {
        "session": planned.session.session,
        "run": running,
        "by": state.get("user"),
        "started": state.get("started"),
        "tests": tests,
    }


def _name(record: dict) -> str:
    return record["subtask"] + (f" CCD{record['ccd']}" if record.get("ccd") else "")


def _waiting(planned, name: str) -> dict:
    """Progress of a test whose gate has not opened, from the note the gate leaves."""
    from calcamp.data.files import read_json

    note = planned.results.test(name) / "waiting.json"
    if not note.is_file():
        return {}
    state = read_json(note)
    return {
        "acquired": "waiting",
        "frames": [state["frames"], state["declared"]],
        "obsids": state.get("obsids"),
        "waiting": state,
    }


@app.command()
def status(
    session: Annotated[Path, typer.Argument(help="session YAML")],
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Show frames, sub-tasks, flags and verdict of every test of a session.

    Example:  calcamp status config/sessions/D11.yaml
    """
    from calcamp.campaign import plan

    state = collect(plan.load([session], {}))
    if as_json:
        print(json.dumps(state, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("test", "acquired", "frames", "OBSIDs", "sub-tasks", "verdict", "flags", box=None)
    for t in state["tests"]:
        table.add_row(
            t["test"],
            t["acquired"],
            f"{t['frames'][0]}/{t['frames'][1]}",
            "-".join(map(str, t["obsids"])) if t["obsids"] else "",
            f"{t['subtasks'][0]}/{t['subtasks'][1]}"
            + (f" ({', '.join(t['crashed'])} crashed)" if t["crashed"] else ""),
            t["verdict"] or "",
            " ".join(t["flags"]),
        )
    print(
        f"session {state['session']}: {state['run']}"
        + (f", started {state['started']} by {state['by']}" if state["started"] else "")
    )
    Console(file=sys.stdout).print(table)
    if state["run"].startswith("dead"):
        print(f"The last run was killed. Go on with:  calcamp run {session} --unlock-dead")
