"""``calcamp sessions``: build session folders from scripts, and deliver them to the acquisition disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup


class BuildByDefault(TyperGroup):
    """``calcamp sessions FILE`` is ``calcamp sessions build FILE``."""

    def parse_args(self, ctx, args):
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["build", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    add_completion=False,
    cls=BuildByDefault,
    no_args_is_help=True,
    help="""Build session folders, deliver them.

    \b
    Example:  calcamp sessions sessions_builder_NOSTROMO_APR19_W18.json
              calcamp sessions deliver SEQUENCES_NOSTROMO_APR19_W18
    """,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def build(
    file: Annotated[
        Path, typer.Argument(help="Input: YAML, or the predecessor's JSON as it is.", show_default=False)
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Move existing session folders aside.")] = False,
    analysis: Annotated[
        Path | None,
        typer.Option(
            "--analysis",
            help="Folder for the session YAMLs of the analyst; by default the workspace's ANALYSIS, else outpath.",
            show_default=False,
        ),
    ] = None,
    block: Annotated[
        str | None, typer.Option("--block", help="Block of the session YAMLs; by default the workspace's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
):
    """Make a folder per session: its scripts, and TEST_SEQUENCE with their order.

    Nothing is written when a script is missing, ambiguous or changed since it was written, or when a session
    folder exists. Existing session YAMLs of the analyst are left as they are.

    \b
    Example:  calcamp sessions sessions_builder_NOSTROMO_APR19_W18.json
    """
    from calcamp.campaign import sessions as builder
    from calcamp.campaign import workspace
    from calcamp.data.files import json_text

    read = builder.read_input(file)
    home = workspace.of(read.folder)
    target = analysis or (home.analysis if home else read.folder_out)
    plans, built = builder.build(read, replace)
    session_files = _session_files(plans, target, home, block)
    for name in built.unchecked:
        typer.echo(f"calcamp: {name} has no checksum in {read.folder_in}: not verified", err=True)
    if as_json:
        outcome = {
            "sessions": [
                {"session": p.name, "folder": f, "scripts": [s.name for s in p.scripts]}
                for p, f in zip(plans, built.folders, strict=True)
            ],
            "moved": [{"from": a, "to": b} for a, b in built.moved],
            "session_files": [{"file": path, "written": new} for path, new in session_files],
            "unchecked": built.unchecked,
        }
        typer.echo(json_text(outcome), nl=False)
        return
    for old, new in built.moved:
        typer.echo(f"moved aside: {old.name} -> {new.name}")
    for plan in plans:
        typer.echo(f"session: {plan.name}")
        for script in plan.scripts:
            typer.echo(script.name)
    typer.echo(f"\nin {read.folder_out}")
    for path, new in session_files:
        typer.echo(f"{'for the analyst' if new else 'kept as it is '}: {path}")


def _session_files(plans, target: Path, home, block: str | None) -> list[tuple[Path, bool]]:
    """Write the session YAMLs that no person has edited: (file, whether it was written)."""
    from calcamp.campaign import workspace
    from calcamp.data.scripts import parse_script_name

    values = workspace.session_values(home, target)
    if block:
        values["block"] = block
    done = []
    for plan in plans:
        path = target / f"{plan.name}.yaml"
        elvis = parse_script_name(plan.scripts[0].name).elvis
        text = workspace.session_text(plan.name, plan.tests, elvis=elvis, **values)
        done.append((path, workspace.write_session(path, text)))
    return done


@app.command()
def deliver(
    folder: Annotated[
        Path, typer.Argument(help="Folder of sessions, or one session folder.", show_default=False)
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Acquisition disk; by default the workspace's atMSSL3M.", show_default=False
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move session folders with other content aside on the disk.")
    ] = False,
    text: Annotated[
        Path | None, typer.Option("--text", help="Also write the text for the operators to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
):
    """Copy session folders to the acquisition disk, verify the copies, print the text for the operators.

    \b
    Example:  calcamp sessions deliver SEQUENCES_NOSTROMO_APR19_W18
              calcamp sessions deliver SEQUENCES_NOSTROMO_APR19_W18/D11 --to /mnt/acquisition/NOSTROMO
    """
    from calcamp.campaign import sessions as builder
    from calcamp.campaign import workspace
    from calcamp.data.files import InputError, json_text, write_atomic

    home = workspace.of(folder)
    destination = to or (home.acquisition if home else None)
    if destination is None:
        raise InputError(
            "no acquisition disk is known",
            file=folder,
            remedy="Give it with --to, or make the workspace with calcamp init --acquisition.",
        )
    delivered = builder.deliver(folder, destination, replace)
    message = builder.operators_text(delivered, home.block_name if home else None)
    if text:
        write_atomic(text, message)
    if as_json:
        typer.echo(json_text([vars(item) for item in delivered]), nl=False)
    else:
        typer.echo(message, nl=False)
