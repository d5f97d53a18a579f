"""``calcamp run``: a session through Snakemake, with the profile found and a dead run's lock cleared away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    ctx: typer.Context,
    session: Annotated[Path, typer.Argument(help="session YAML")],
    cores: Annotated[
        int, typer.Option("--cores", "-c", help="cores to use; all of the machine by default")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="show what would be done")] = False,
    unlock: Annotated[
        bool,
        typer.Option("--unlock-dead", help="remove the lock of a run that is proved dead, without asking"),
    ] = False,
) -> None:
    """Run a session: the same as snakemake, whose options may follow.

    Example:  calcamp run config/sessions/D11.yaml -c4 --config mode=wait
    """
    from calcamp.campaign import plan
    from calcamp.data.alive import is_dead, is_running
    from calcamp.data.files import read_json
    from calcamp.paths import workflow_root

    planned = plan.load([session], {})
    state_path = planned.results.root / "config" / "run.json"
    state = read_json(state_path) if state_path.is_file() else {}
    snakefile = Path("Snakefile") if Path("Snakefile").is_file() else workflow_root() / "Snakefile"
    base = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--configfile", str(session)]
    if not any(a.startswith(("--profile", "--workflow-profile")) for a in ctx.args):
        base += ["--workflow-profile", str(snakefile.resolve().parent / "profiles" / "default")]
    if not dry_run and is_running(state):
        print(
            f"calcamp: session {planned.session.session} is being run since {state['started']} by {state['user']} on "
            f"{state['host']} (process {state['pid']}); wait for it, or end it with 'calcamp stop {session}'",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    if not dry_run and is_dead(state):
        # Snakemake keeps its lock when it is killed. The process is proved dead, so the lock protects nothing.
        ask = f"The run of {state['started']} (process {state['pid']}) is dead. Remove its lock and go on?"
        if not unlock and not (sys.stdin.isatty() and typer.confirm(ask, default=True)):
            print(f"calcamp: {ask} Say so with --unlock-dead", file=sys.stderr)
            raise typer.Exit(1)
        done = subprocess.run(
            [*base, "--unlock", "--quiet", "all"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise typer.Exit(1)
    command = [
        *base,
        "--cores",
        str(cores or os.cpu_count() or 1),
        *(["--dry-run"] if dry_run else []),
        *ctx.args,
    ]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
