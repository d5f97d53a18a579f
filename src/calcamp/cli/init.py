"""``calcamp init``: make the workspace of a block."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def init(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The workspace; with --programme, the folder that holds <PROGRAMME>/<BLOCK>.",
            show_default=False,
        ),
    ],
    block: Annotated[str, typer.Option("--block", help="Nickname of the block.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option(
            "--data", help="The block's folder on the analysis disk (it holds data/).", show_default=False
        ),
    ],
    results: Annotated[
        Path, typer.Option("--results", help="Folder for results; made if absent.", show_default=False)
    ],
    programme: Annotated[
        str | None, typer.Option("--programme", help="FLIGHT, TRAIN, ...: makes DIR/<PROGRAMME>/<BLOCK>.")
    ] = None,
    acquisition: Annotated[
        Path | None, typer.Option("--acquisition", help="The block's folder on the acquisition disk.")
    ] = None,
    chamber: Annotated[
        str | None, typer.Option("--chamber", help="Chamber profile, in place of the block's.")
    ] = None,
    new_block: Annotated[
        bool, typer.Option("--new-block", help="The block is new: write a file for its serials and offsets.")
    ] = False,
    who: Annotated[str, typer.Option("--who", help="Your name, for the session files.")] = "",
):
    """Make folders, links to the disks, filled-in files, Snakefile and profiles. Nothing is overwritten.

    \b
    Example:  calcamp init CALCAMP --programme TRAIN --block NOSTROMO \\
                  --data /disk/data06/TRAIN/NOSTROMO --results /disk/data06/TRAIN/NOSTROMO/results_abc
    """
    import re

    from calcamp.campaign import workspace
    from calcamp.data.files import InputError

    if programme is not None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", programme):
            raise InputError(f"{programme!r} is not the name of a programme", where="--programme")
        folder = folder / programme / block
    asked = workspace.Asked(folder, block, data, results, acquisition, chamber, new_block, who)
    home, made = workspace.create(asked)
    typer.echo(f"workspace {home.root}:")
    for path in made:
        full = home.root / path
        if "profiles" in path.parts[:-1] or "schema" in path.parts[:-1]:
            continue
        arrow = f" -> {full.readlink()}" if full.is_symlink() else "/" if full.is_dir() else ""
        typer.echo(f"  {path}{arrow}")
    for problem in workspace.problems(home.root):
        typer.echo(f"calcamp: still to do: {problem}", err=True)
    names = sorted(path.name for path in home.scripts.glob("*.yaml"))
    session = home.sessions[0].name if home.sessions else "SESSION.yaml"
    typer.echo(
        "\nnext:\n"
        f"  cd {home.scripts}\n"
        f"  calcamp scripts {names[0]}\n"
        f"  calcamp sessions {names[1]}\n"
        f"  cd {home.analysis}\n"
        f"  snakemake -n --configfile {session}"
    )
