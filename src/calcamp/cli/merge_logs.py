"""``calcamp merge-logs``: one EXP-LOG of many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


def listed(path: Path) -> list[Path]:
    """Logs named in a text file, one a line; lines that start with # are skipped, relative paths are from the file."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [path.parent / line for line in lines if line and not line.startswith("#")]


@app.command()
def merge_logs(
    logs: Annotated[list[Path] | None, typer.Argument(help="EXP-LOGs, or day-folders that hold them")] = None,
    output: Annotated[Path, typer.Option("--output", "-O", help="the merged log")] = Path(
        "EXP_LOG_merged.txt"
    ),
    listing: Annotated[
        Path | None, typer.Option("--list", "-L", help="text file with one log per line")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out logs that cannot be read")] = False,
) -> None:
    """Merge EXP-LOGs in the order of their dates, tab separated as ELVIS writes them.

    An exposure that is in two logs is kept once; one with other values in the second is kept as in the first
    and named. Columns that only some logs have are empty in the others.

    Example:  calcamp merge-logs data/12_Mar_19 data/13_Mar_19 -O EXP_LOG_NOSTROMO.txt
    """
    from calcamp.data import elvis
    from calcamp.data.explog import find_explogs, read_explog
    from calcamp.data.files import InputError, write_atomic

    paths: list[Path] = []
    for item in [*(logs or []), *(listed(listing) if listing else [])]:
        found = find_explogs(item) if item.is_dir() else [item]
        if not found:
            raise InputError("no EXP-LOG in this folder", file=item)
        paths += found
    if not paths:
        raise typer.BadParameter("give EXP-LOGs or day-folders")
    if output.exists():
        raise InputError("is there already", file=output, remedy="Remove it, or give another --output")
    good = []
    for path in paths:
        try:
            read_explog(path)
            good.append(path)
        except InputError as error:
            if not skip_bad:
                raise
            print(f"left out: {error}", file=sys.stderr)
    if not good:
        raise InputError("none of the logs can be read")
    log = read_explog(good, finished=True)
    # Names of old versions have been read by the new ones, in their units: written too, they would tell the next
    # reader that the times are still in ms.
    columns = [
        c
        for c in log.columns
        if not c.startswith("_") and (c in elvis.explog_columns() or not elvis.current_names(c))
    ]
    lines = ["\t".join(columns), *("\t".join(_cell(row.get(c)) for c in columns) for row in log.rows)]
    write_atomic(output, "".join(line + "\r\n" for line in lines))
    for problem in log.problems:
        if problem.kind in ("conflict", "bad_line", "bad_value"):
            print(problem, file=sys.stderr)
    print(f"{output}: {len(log.rows)} rows of {len(log.exposures())} exposures from {len(good)} logs")


def _cell(value) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
