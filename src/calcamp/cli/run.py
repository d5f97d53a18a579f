"""``calcamp run``: a session through Snakemake, with the profile found and a dead run cleared away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

ORPHANS_S = 60  # steps of a killed run end within seconds; a busy machine may take longer
ROUNDS = 20  # of a session in wait mode whose gates gave their place away


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
        typer.Option("--unlock-dead", help="clear away a run that is proved dead, without asking"),
    ] = False,
) -> None:
    """Run a session: the same as snakemake, whose options may follow.

    On a terminal one line says how far it is; in a pipe Snakemake speaks itself. Refuses, saying who, while the
    session is being run. After a kill -9, --unlock-dead goes on. Where sub-tasks could not be started (a cluster
    that takes no job for a moment) they are tried once more.

    Example:  calcamp run config/sessions/D11.yaml -c4 --config mode=wait
    """
    from calcamp.campaign import plan
    from calcamp.cli.progress import wants_progress
    from calcamp.paths import workflow_root

    planned = plan.load([session], _overrides(ctx.args))
    snakefile = Path("Snakefile") if Path("Snakefile").is_file() else workflow_root() / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--configfile", str(session)]
    if not any(a.startswith(("--profile", "--workflow-profile")) for a in ctx.args):
        command += ["--workflow-profile", str(snakefile.resolve().parent / "profiles" / "default")]
    command += ["--cores", str(cores or os.cpu_count() or 1), *ctx.args]
    if dry_run:
        raise typer.Exit(subprocess.run([*command, "--dry-run"], check=False).returncode)
    lock = _claim(planned, session, unlock)
    _clear_unreadable_records()
    show = sys.stdout.isatty() and wants_progress(ctx.args)
    whole, retries = _is_whole(ctx.args), 1
    try:
        for _ in range(ROUNDS):
            before = _started(planned)
            status = _run(command, lock.descriptor, planned if show else None, cores or os.cpu_count() or 1)
            _note_end(planned, status)
            begun = _started(planned) != before
            if status == 1 and begun and retries and (left := _never_run(planned)):
                retries -= 1
                print(f"calcamp: {len(left)} sub-tasks were not run ({left[0]}): once more", file=sys.stderr)
            elif not status and whole and (absent := _absent(planned)):
                print(f"calcamp: Snakemake ended well, but {', '.join(absent)} is not there", file=sys.stderr)
                status = 1
                break
            elif not status and _yielded(planned):
                print("calcamp: tests gave their place to others while they waited: waiting for them again")
            else:
                break
        raise typer.Exit(status if status >= 0 else 128 - status)
    finally:
        lock.leave()


def _overrides(arguments: list[str]) -> dict:
    """What --config among the options says: ``--config mode=wait check_only=true``."""
    import yaml

    found, inside = {}, False
    for argument in arguments:
        if argument in ("--config", "-C"):
            inside = True
        elif argument.startswith("-"):
            inside = False
        elif inside and "=" in argument:
            key, _, value = argument.partition("=")
            found[key] = yaml.safe_load(value)
    return found


# ---- who runs it ---------------------------------------------------------------------------------
def _claim(planned, session: Path, unlock: bool):
    """The lock of the session, after a dead run was cleared away; exit 1 with the name of who has it."""
    from calcamp.data import alive

    root, name = planned.results.root, planned.session.session
    state_path = root / "config" / "run.json"
    state = alive.read_state(state_path)
    lock = alive.RunLock(root / "config" / "run.lock")
    before = lock.holder()
    taken = lock.take()
    if not taken or alive.is_running(state):
        owner = state if alive.is_running(state) else before
        print(
            f"calcamp: session {name} is being run {alive.who(owner)}; wait for it, or end it with "
            f"'calcamp stop {session}'",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    left = alive.snakemake_locks(Path.cwd(), root)
    if not left and not alive.is_dead(state):
        return lock
    others = alive.processes_of(("snakemake", str(session)), Path.cwd())
    if others and not alive.is_dead(state):
        print(
            f"calcamp: the folder is locked, and process {others[0]} looks like a run of {session}; wait for it",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    owner = state if alive.is_dead(state) else before
    ask = f"The run {alive.who(owner)} is dead. Clear its lock away and go on?"
    if not unlock and not (sys.stdin.isatty() and typer.confirm(ask, default=True)):
        print(f"calcamp: {ask} Say so with --unlock-dead", file=sys.stderr)
        raise typer.Exit(1)
    _wait_for_orphans(root)
    # Not snakemake --unlock: that takes the locks of other sessions of the folder away too.
    for path in alive.snakemake_locks(Path.cwd(), root):
        path.unlink(missing_ok=True)
    return lock


def _wait_for_orphans(root: Path) -> None:
    """Steps of a killed run end by themselves; one that still wrote would disturb the next run."""
    from calcamp.data import alive

    deadline = time.monotonic() + ORPHANS_S
    while (
        left := alive.processes_of(("calcamp.steps", f"{root}/"), Path.cwd())
    ) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        print(
            f"calcamp: steps of the dead run still run (process {', '.join(map(str, left))}); end them first",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _clear_unreadable_records() -> None:
    """Remove what Snakemake noted of its jobs where the disk damaged it: it would end with a traceback.

    Without its record an output is judged by its time alone, as after a move to another disk.
    """
    damaged = 0
    for path in Path(".snakemake", "metadata").rglob("*"):
        if not path.is_file():
            continue
        try:
            sound = isinstance(json.loads(path.read_bytes()), dict)
        except ValueError:
            sound = False
        if not sound:
            path.unlink(missing_ok=True)
            damaged += 1
    if damaged:
        print(
            f"calcamp: {damaged} damaged records in .snakemake removed; look at the products with 'calcamp verify'",
            file=sys.stderr,
        )


# ---- running -------------------------------------------------------------------------------------
def _run(command: list[str], descriptor: int, planned=None, cores: int = 1) -> int:
    """Snakemake in a process group of its own, which gets all signals that come here.

    With a plan, its output is read and shown as one line that is renewed.
    """
    said = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if planned else {}
    child = subprocess.Popen(command, pass_fds=(descriptor,), process_group=0, **said)
    ended = {}

    def forward(number, _frame):
        # Snakemake alone would wait for its running jobs, hours where a gate waits: end the jobs with it.
        ended["by"] = number
        os.killpg(child.pid, signal.SIGTERM)

    before = {
        number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        if planned:
            from calcamp.cli.progress import follow

            follow(child.stdout, planned, cores)
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if "by" in ended:
        return 128 + ended["by"]
    return status


def _note_end(planned, status: int) -> None:
    """Write down the end of a run that Snakemake could not: after a signal. A killed one stays dead."""
    from calcamp.data import alive

    state = alive.read_state(planned.results.root / "config" / "run.json")
    if status > 0 and alive.is_dead(state) and not alive.snakemake_locks(Path.cwd(), planned.results.root):
        planned.end_run("interrupted" if status > 128 else "errors")


def _started(planned) -> str | None:
    """When Snakemake last began with the jobs of the session."""
    from calcamp.data import alive

    return alive.read_state(planned.results.root / "config" / "run.json").get("started")


def _never_run(planned) -> list[str]:
    """Sub-tasks of tests whose data are there that left no record: they were not started, or killed."""
    from calcamp.data import alive

    return [
        f"{name} {Path(path).stem}"
        for name in planned.tests
        if alive.read_state(planned.results.manifest(name))
        for path in planned.records(name)
        if not Path(path).is_file()
    ]


def _absent(planned) -> list[str]:
    """What a whole run should have left and did not."""
    wanted = [planned.results.verdict(name) for name in planned.tests]
    wanted += [planned.results.report(name) for name in planned.tests]
    return [str(path) for path in (*wanted, planned.results.root / "summary.json") if not path.is_file()]


def _is_whole(arguments: list[str]) -> bool:
    """Whether the options leave the targets alone: settings and profiles only. Others are not looked at."""
    with_value = ("--profile", "--workflow-profile", "--jobs", "-j", "--quiet", "-q")
    return all(
        a in ("--config", "-C", *with_value) or "=" in a or before in with_value
        for before, a in zip(["", *arguments], arguments, strict=False)
    )


def _yielded(planned) -> list[str]:
    """Tests whose gate gave its place to another test (wait mode)."""
    from calcamp.data import alive

    if planned.session.mode != "wait" or (planned.results.root / "STOP").exists():
        return []
    return [
        name
        for name in planned.tests
        if alive.read_state(planned.results.manifest(name)).get("end") == "yielded"
    ]
