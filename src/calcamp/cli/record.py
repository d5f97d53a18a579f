"""``calcamp record``: fill the test record workbook from the verdicts of a session."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def record(
    session: Annotated[
        Path, typer.Argument(help="Session YAML, or a session's results folder.", show_default=False)
    ],
    workbook: Annotated[
        Path, typer.Option("--workbook", "-w", help="The record, an .xlsx file.", show_default=False)
    ],
    tests: Annotated[
        list[str] | None,
        typer.Option("--test", "-t", help="Only this test; may be repeated.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also overwrite what people typed into calcamp's columns.")
    ] = False,
    wait: Annotated[
        float, typer.Option("--wait", help="Seconds to wait for a workbook open elsewhere.", min=0)
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
):
    """Put OBSIDs, script, day-folder, flags, verdict, headline numbers and report into tab TESTS_RECORD.

    Rows are found by block, test and session, columns by name; what people typed is kept. Exit 1 when the
    workbook is open elsewhere (the rows wait in a queue file) or would lose a part (they go to a side file).

    \b
    Example:  calcamp record D11.yaml --workbook TEST_RECORD_NOSTROMO.xlsx
    """
    from calcamp.data import record as keeper
    from calcamp.data.files import InputError, json_text

    folder, block = _results(session)
    rows = keeper.rows_of_session(folder, block)
    if tests:
        absent = sorted(set(tests) - {row["test"] for row in rows})
        if absent:
            known = ", ".join(str(row["test"]) for row in rows)
            raise InputError(f"no results of {', '.join(absent)}", file=folder, expected=known)
        rows = [row for row in rows if row["test"] in tests]
    done = keeper.update(workbook, rows, force=force, retry_s=wait)
    if as_json:
        typer.echo(json_text({**vars(done), "rows": len(rows)}), nl=False)
    else:
        _tell(done, len(rows))
    if done.state in ("queued", "beside"):
        raise typer.Exit(1)


def _results(session: Path) -> tuple[Path, str | None]:
    """(results folder of the session, name of its block if known)."""
    if session.is_dir():
        return session, None
    from calcamp.config.lookup import load_block, load_session

    loaded = load_session(session)
    return loaded.results_root / loaded.session, load_block(loaded.block, loaded.folder).block


def _tell(done, rows: int) -> None:
    if done.state == "queued":
        typer.echo(
            f"calcamp: {done.path.name} is {done.reason}: {rows} row{'s' if rows != 1 else ''} queued "
            f"({done.queued} wait). Close it and run this again; if nobody has it open, remove that lock file.",
            err=True,
        )
        return
    if done.state == "beside":
        typer.echo(
            f"calcamp: {done.reason}; it was left as it is, the rows are in {done.path}. Take these parts out of "
            "the workbook, or keep the record in one without them.",
            err=True,
        )
    if done.state == "unchanged":
        typer.echo(f"{done.path}: nothing new in {rows} row{'s' if rows != 1 else ''}")
    else:
        typer.echo(f"{done.path}: rows added: {done.new_rows}, changed: {done.changed_rows}")
    if done.copy:
        typer.echo(f"copy of the workbook as it was: {done.copy.name}")
    for cell in done.kept:
        print(f"calcamp: kept what was typed: {cell}", file=sys.stderr)
