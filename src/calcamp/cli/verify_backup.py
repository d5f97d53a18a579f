"""``calcamp verify-backup``: read both sides of a back-up and compare."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def verify_backup(
    day_folder: Annotated[Path, typer.Argument(help="day-folder, the original")],
    target: Annotated[str, typer.Argument(help="folder that holds the copy of it, or USER@HOST:DIR")],
    hours: Annotated[
        float, typer.Option(help="files verified within this time are not read again; 0: read all", min=0)
    ] = 24.0,
    minutes: Annotated[
        float | None, typer.Option(help="stop after this time; the next call goes on", min=0)
    ] = None,
    state: Annotated[
        Path, typer.Option(help="folder of the monitor's state, so that its page shows the result")
    ] = Path("monitor"),
    name: Annotated[str, typer.Option(help="back-up or broadcast, for the page")] = "",
    config: Annotated[Path | None, typer.Option(help="settings YAML of the monitor (ssh)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for a program to read")] = False,
) -> None:
    """Compare the checksums of all finished files of a day-folder on both sides; nothing is changed.

    Exit 0: every file is there and equal. Exit 1: one differs, is missing, or could not be verified yet.

    Example:  calcamp verify-backup data/21_Feb_80 atCALDATA/data
    """
    from calcamp.data.files import InputError
    from calcamp.monitor.copying import Rsync, Target, Verification
    from calcamp.monitor.settings import load_settings

    if not day_folder.is_dir():
        raise InputError("no such folder", file=day_folder)
    where = Target.parse(target)
    if not where.remote and not Path(where.folder(day_folder.absolute().name)).is_dir():
        raise InputError(
            f"no copy of {day_folder.absolute().name} in it",
            file=where.text,
            remedy="Give the folder that holds the copied day-folder",
        )
    name = name or ("broadcast" if where.remote else "back-up")
    if name not in ("back-up", "broadcast"):
        raise typer.BadParameter("back-up or broadcast", param_hint="--name")
    state.mkdir(parents=True, exist_ok=True)
    folder = day_folder.absolute()
    rsync = Rsync(folder, where, load_settings(config).copying)
    check = Verification(rsync, state / f"verify_{name}_{folder.name}.json")
    quiet = as_json or not sys.stderr.isatty()
    report = check.run(
        older_than_s=3600 * hours,
        seconds=None if minutes is None else 60 * minutes,
        progress=None
        if quiet
        else lambda done, all_: print(f"\r{done} of {all_} files", end="", file=sys.stderr),
    )
    if not quiet:
        print(file=sys.stderr)
    if as_json:
        print(json.dumps({**vars(report), "whole": report.whole}, indent=1))
    else:
        _words(report)
    raise typer.Exit(0 if report.whole and (report.verified or not report.skipped) else 1)


def _words(report) -> None:
    age = "" if report.oldest is None else f", oldest check {(time.time() - report.oldest) / 3600:.1f} h ago"
    print(f"{report.verified} files verified{age}; {report.read_bytes} bytes read now")
    for title, names in (
        ("DIFFER", report.differing),
        ("MISSING at the other side", report.missing),
    ):
        if names:
            print(
                f"{title}: {', '.join(names[:20])}{f' and {len(names) - 20} more' if len(names) > 20 else ''}"
            )
    if report.skipped:
        count = len(report.skipped)
        print(
            f"{count} file{'s' if count > 1 else ''} changed in the last minute and may still grow: call again later"
        )
    if report.unverified:
        print(f"{report.unverified} files not verified yet: call again")
    if report.error:
        print(f"calcamp: {report.error}", file=sys.stderr)
