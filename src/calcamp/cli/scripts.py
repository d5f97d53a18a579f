"""``calcamp scripts``: write acquisition scripts from an input file and a chamber profile."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def scripts(
    file: Annotated[
        Path, typer.Argument(help="Input: YAML, or the predecessor's JSON as it is.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the scripts, in place of the file's outpath.",
            show_default=False,
        ),
    ] = None,
    diff: Annotated[
        Path | None,
        typer.Option(
            "--diff", help="Folder of an earlier writing: show what changed since.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Write nothing; show what would be written.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
):
    """Write acquisition scripts, their checksums, the inventory and the scheduler's sheet.

    \b
    Example:  calcamp scripts scripts_inputs_NOSTROMO_APR19_W18.json
              calcamp scripts scripts_inputs_NOSTROMO_MAY19_W19.yaml --diff Scripts_NOSTROMO_APR19_W18
    """
    from calcamp.campaign import scripts as writer
    from calcamp.data.files import json_text

    read = writer.read_input(file)
    old = writer.latest(diff) if diff else None
    prepared = writer.prepare_input(read)
    folder = output or read.folder_out
    when = writer.now()
    mixed = writer.strangers(folder, prepared, when)
    say = (lambda *_: None) if as_json else typer.echo
    if dry_run:
        say(f"would write to {folder}:")
        for test in prepared:
            say(f"  {test.line.text()}")
        frames, minutes = sum(t.line.frames for t in prepared), sum(t.minutes for t in prepared)
    else:
        say("WRITING SCRIPTS...")
        written = writer.write(prepared, folder, when, progress=lambda name: say(f"{name}..."))
        say(f"\nin {folder}:")
        for path in (*written.scripts, written.check_sums, written.inventory, written.scheduler):
            say(f"  {path.name}")
        frames, minutes = written.frames, written.minutes
    say(f"\n{len(prepared)} tests, {frames} frames, {minutes:.2f} minutes ({duration(minutes)})")
    found = None
    if old is not None:
        found = writer.differences(old, {test.name: test.columns for test in prepared})
        say(f"\nchanges since {diff}:")
        for line in writer.difference_lines(found):
            say(f"  {line}")
    if mixed:
        typer.echo(
            f"calcamp: {folder} also holds {', '.join(path.name for path in mixed)}: sessions cannot be built "
            "from a folder with two scripts of a test; move the old ones away, or write to another folder",
            err=True,
        )
    if as_json:
        typer.echo(json_text(_outcome(folder, prepared, frames, minutes, dry_run, mixed, found)), nl=False)


def duration(minutes: float) -> str:
    """``5 h 10 min``."""
    hours, rest = divmod(round(minutes), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def _outcome(folder, prepared, frames, minutes, dry_run, mixed, found) -> dict:
    return {
        "folder": folder,
        "written": not dry_run,
        "tests": [
            {
                "test": test.name,
                "columns": list(test.line.columns),
                "frames": test.line.frames,
                "minutes": test.minutes,
            }
            for test in prepared
        ],
        "frames": frames,
        "minutes": minutes,
        "older_scripts": [path.name for path in mixed],
        "changes": None
        if found is None
        else [{"test": item.test, "status": item.status, "changes": list(item.changes)} for item in found],
    }
