"""``calcamp status``: where a session stands."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
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
    from calcamp.data.alive import is_running, read_state

    state = read_state(planned.results.test(name) / "waiting.json")
    if not is_running(state):
        return {}
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
    watch: Annotated[
        float | None,
        typer.Option("--watch", min=0.5, help="show it again every so many seconds; end with Ctrl-C"),
    ] = None,
) -> None:
    """Show frames, sub-tasks, flags and verdict of every test of a session; of those that wait, what they wait for.

    \b
    Example:  calcamp status config/sessions/D11.yaml
              calcamp status config/sessions/D11.yaml --watch 5
    """
    from calcamp.campaign import plan

    planned = plan.load([session], {})
    if as_json:
        print(json.dumps(collect(planned), indent=1))
        return
    from rich.console import Console

    console = Console(file=sys.stdout)
    if watch is None:
        console.print(_shown(collect(planned), session))
        return
    import time

    from rich.live import Live

    try:
        with Live(console=console, auto_refresh=False, screen=sys.stdout.isatty()) as live:
            while True:
                live.update(_shown(collect(planned), session), refresh=True)
                time.sleep(watch)
    except KeyboardInterrupt:
        console.print(_shown(collect(planned), session))


def _shown(state: dict, session: Path):
    """The state as lines and a table."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

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
    head = f"session {state['session']}: {state['run']}"
    if state["started"]:
        head += f", started {state['started']} by {state['by']}"
    left = sum(t["subtasks"][1] - t["subtasks"][0] for t in state["tests"])
    head += f"; {left} sub-tasks to do"
    lines = [line for t in state["tests"] if "waiting" in t for line in _wait_lines(t["test"], t["waiting"])]
    if state["run"].startswith("dead"):
        lines.append(f"The last run was killed. Go on with:  calcamp run {session} --unlock-dead")
    return Group(Text(head), table, *(Text(line) for line in lines))


def _wait_lines(test: str, note: dict) -> list[str]:
    """What a waiting gate says."""
    since = datetime.now(UTC) - datetime.fromisoformat(note["written"])
    silent = note["silent_min"] + max(0.0, since.total_seconds() / 60)
    last = f"last OBSID {note['last_obsid']}, " if note["last_obsid"] is not None else ""
    lines = [
        f"{test}: {note['frames']}/{note['declared']} frames, {last}log silent {silent:.0f} min, "
        f"about {note['left_min']:.0f} min of acquisition left"
    ]
    if note["trouble"]:
        lines.append(f"  {note['trouble']}")
    lines += [f"  wrong: {text}" for text in note["wrong"][:5]]
    lines += [f"  frame {text}" for text in note["files"][:5]]
    return lines
