"""``calcamp obsids``: the OBSID limits and day-folders of a session, as found in the EXP-LOG."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

_DAYS = 2  # a session that starts in one day-folder goes on in those of the next days at most


@app.command()
def obsids(
    session: Annotated[Path, typer.Argument(help="session YAML")],
    write: Annotated[
        bool, typer.Option("--write", help="put them into the session YAML; comments and order stay")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Show the OBSIDs of each test in the EXP-LOG, and write them into the session file.

    Only complete tests are written; limits that hold a complete run stay as they are. Exit 1 when a test is not complete.

    \b
    Example:  calcamp obsids config/sessions/D11.yaml
              calcamp obsids config/sessions/D11.yaml --write
    """
    from calcamp.campaign import plan

    planned = plan.load([session], {"mode": "wait"})  # a day-folder may not be there yet
    found = collect(planned)
    changes = changes_of(planned, found)
    if write and changes:
        from calcamp.config.yamlfile import edit_yaml

        edit_yaml(planned.session.file, changes)
    if as_json:
        print(json.dumps({"tests": found, "written": write and bool(changes)}, indent=1))
    else:
        for name, item in found.items():
            limits = f"{item['obsids'][0]}-{item['obsids'][1]}" if item["obsids"] else "none"
            print(f"{name}: {item['frames']} of {item['declared']} frames, OBSID {limits}")
            for line in item["messages"]:
                print(f"  {line}")
        if not changes:
            print(f"{session}: nothing to change")
        elif write:
            print(f"{session}: {len(changes)} entries written")
        else:
            print(f"{session}: {len(changes)} entries would change; write them with --write")
    raise typer.Exit(0 if all(item["complete"] for item in found.values()) else 1)


def collect(planned) -> dict[str, dict]:
    """What the EXP-LOG holds of each test, looked for in the session's day-folders and those of the next days."""
    from calcamp.campaign.acquisition import look_at_log

    found = {}
    for name, item in planned.tests.items():
        gate = planned.gate(name)
        own = item.entry.data is not None
        gate["folders"] = gate["folders"] if own else [str(p) for p in candidates(planned.session)]
        look = look_at_log(gate, planned.structure(name))
        if gate["obsids"] and not look.alignment.complete:
            # Limits that hold no whole run of the test are wrong; those that do are the analyst's choice.
            gate["obsids"] = None
            look = look_at_log(gate, planned.structure(name))
        obsids = [logged.obsid for logged, _, _ in look.assigned]
        found[name] = {
            "frames": len(obsids),
            "declared": look.alignment.declared,
            "obsids": [obsids[0], obsids[-1]] if obsids else None,
            "complete": look.alignment.complete,
            "day_folders": list(dict.fromkeys(logged.folder.name for logged, _, _ in look.assigned)),
            "messages": look.alignment.messages,
        }
    return found


def candidates(session) -> list[Path]:
    """Day-folders of the session, and those of the days after that lie beside them, in date order."""
    from calcamp.data.names import parse_day_folder

    listed = session.data_folders()
    dates = {}
    for folder in [*listed, *(p for p in listed[0].parent.glob("*") if p.is_dir())] if listed else []:
        try:
            dates[folder] = parse_day_folder(folder.name)
        except ValueError:
            continue
    of_listed = [dates[f] for f in listed if f in dates]
    if not of_listed:
        return listed
    last = max(of_listed) + timedelta(days=_DAYS)
    near = [f for f, day in dates.items() if min(of_listed) <= day <= last]
    return sorted({*listed, *near}, key=lambda f: (dates.get(f, max(of_listed)), f.name))


def changes_of(planned, found: dict[str, dict]) -> dict[tuple, object]:
    """Changes of the session file: limits of complete tests, day-folders that hold their frames."""
    changes: dict[tuple, object] = {}
    for name, item in found.items():
        if item["complete"] and list(planned.tests[name].entry.obsids or ()) != item["obsids"]:
            changes["tests", name, "obsids"] = item["obsids"]
    if planned.session.data is not None:
        listed = planned.session.data.day_folders
        used = {
            day
            for name, item in found.items()
            if planned.tests[name].entry.data is None and item["complete"]
            for day in item["day_folders"]
        }
        order = [folder.name for folder in candidates(planned.session)]
        wanted = [day for day in order if day in used or day in listed]
        if used and wanted != list(listed):
            changes["data", "day_folders"] = wanted
    return changes
