"""``calcamp monitor``: watch an acquisition. The page, the warnings, the back-up and the log."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


def channels_of(settings, path: Path | None) -> list:
    """Channels of warnings from the file given, the settings' file, or the environment."""
    from calcamp.monitor.settings import channels_from_environment, load_channels

    if path is None and settings.warnings:
        path = settings.path_to(settings.warnings)
    return load_channels(path) if path is not None else channels_from_environment()


def try_warnings(channels: list, tag: str) -> int:
    """Send a test message on each channel; returns the exit code."""
    from calcamp.monitor.send import deliver, make_target, trial_message

    failed = 0
    for channel in channels:
        ok, reason = deliver(make_target(channel), channel, trial_message(time.time(), tag))
        print(f"{channel.name} ({channel.kind}): {'sent' if ok else f'NOT sent: {reason}'}")
        failed += not ok
    return 1 if failed else 0


@app.command()
def monitor(
    day_folder: Annotated[
        Path | None, typer.Argument(help="day-folder, e.g. data/21_Feb_80; it may not exist yet")
    ] = None,
    backup: Annotated[str | None, typer.Option(help="folder that gets a copy of the day-folder")] = None,
    broadcast: Annotated[str | None, typer.Option(help="USER@HOST:DIR that gets a copy over ssh")] = None,
    warn: Annotated[bool, typer.Option("--warn", help="send warnings")] = False,
    warnings_file: Annotated[
        Path | None,
        typer.Option(
            "--warnings",
            help="file of channels, mode 0600 (else the settings' or CALCAMP_WARN_EMAIL, _SMS, _CALL, _CHAT)",
        ),
    ] = None,
    test_warning: Annotated[
        bool, typer.Option("--test-warning", help="send a test message on each channel, and end")
    ] = False,
    session: Annotated[Path | None, typer.Option(help="session YAML: expected progress and verdicts")] = None,
    results: Annotated[
        Path | None, typer.Option(help="results of the session, where the session YAML does not say")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="settings YAML: periods, thresholds, ssh")] = None,
    limits: Annotated[str | None, typer.Option(help="limits file, by name or path")] = None,
    log: Annotated[
        Path | None, typer.Option(help="log file; by default monitor_<time>[_tag].log in --state")
    ] = None,
    tag: Annotated[str, typer.Option(help="name of this monitor, for titles, log and state")] = "",
    state: Annotated[Path, typer.Option(help="folder of alarms, queue and log")] = Path("monitor"),
    headless: Annotated[
        bool, typer.Option("--headless", help="no page: warnings, back-up and log only")
    ] = False,
    host: Annotated[
        str, typer.Option(help="address to serve; another than 127.0.0.1 needs the token to look")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port of the page", min=1, max=65535)] = 8321,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="further NAME or NAME:PORT by which the page is reached")
    ] = None,
    ds9: Annotated[
        str | None, typer.Option(help="title or access point of the DS9 that images go to")
    ] = None,
) -> None:
    """Watch a day-folder while it is acquired: house-keeping, EXP-LOG, images, warnings, back-up.

    Example:  calcamp monitor data/21_Feb_80 --backup atCALDATA/data --warn --session config/sessions/D11.yaml
    """
    import re

    from calcamp.config.lookup import load_limits
    from calcamp.data.files import InputError
    from calcamp.monitor.settings import load_settings

    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,40}", tag):
        raise typer.BadParameter("letters, digits and _ . - only", param_hint="--tag")
    settings = load_settings(config)
    channels = channels_of(settings, warnings_file) if warn or test_warning else []
    if (warn or test_warning) and not channels:
        raise InputError(
            "no channel of warnings is configured",
            expected="--warnings FILE, or CALCAMP_WARN_EMAIL in the environment",
            remedy="See docs/operator.md",
        )
    if test_warning:
        raise typer.Exit(try_warnings(channels, tag))
    if day_folder is None:
        raise typer.BadParameter("give the day-folder, e.g. data/21_Feb_80", param_hint="DAY_FOLDER")
    if day_folder.exists() and not day_folder.is_dir():
        raise InputError("is not a folder", file=day_folder)
    if session is not None and not session.is_file():
        raise InputError("no such session file", file=session)
    beside = config or session
    found = load_limits(limits or settings.limits, beside.parent if beside else None)

    from calcamp.monitor.log import EventLog
    from calcamp.monitor.watch import Monitor

    state.mkdir(parents=True, exist_ok=True)
    if log is None:
        log = state / f"monitor_{time.strftime('%Y%m%d_%H%M%S')}{f'_{tag}' if tag else ''}.log"
    watched = Monitor(
        day_folder.absolute(),
        settings,
        found.hk_limits(),
        channels,
        tag=tag,
        state_dir=state,
        log=EventLog(log),
        backup=backup,
        broadcast=broadcast,
        session=session,
        results=results,
        ds9=ds9,
    )
    for line in _begins(watched, day_folder, bool(channels)):
        print(line, file=sys.stderr)
    _run(watched, state, log, headless, host, port, tuple(allow_host or ()))


def _begins(watched, day_folder: Path, warns: bool) -> list[str]:
    """What the monitor does from now on, and what it lacks, in words."""
    from calcamp.monitor.copying import rsync_too_old

    there = watched.folder.is_dir()
    lines = [f"watching {day_folder}" + ("" if there else ": not there yet, waiting for it")]
    for copier in watched.copiers:
        target = copier.rsync.target
        lines.append(f"{copier.state.name}: to {target.shown}/{watched.folder.name}")
        if not target.remote and not Path(target.text).is_dir():
            lines.append(f"  {target.shown} does not exist: make it (mkdir), or nothing is copied")
    if not watched.copiers:
        lines.append("back-up: none (--backup FOLDER)")
    elif old := rsync_too_old():
        lines.append(f"  {old}")
    names = ", ".join(f"{c.name} ({c.kind})" for c in watched.channels)
    lines.append(f"warnings: {names}" if warns else "warnings: none (--warn)")
    return lines


def _run(
    watched, state: Path, log: Path, headless: bool, host: str, port: int, more: tuple[str, ...]
) -> None:
    """Look in a thread, serve in this one, end both on SIGINT or SIGTERM. One monitor per state folder and tag."""
    import signal
    import threading

    from filelock import FileLock, Timeout

    from calcamp.data.files import InputError

    lock = FileLock(str(watched.state_file.with_suffix(".lock")), mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            "another monitor uses this folder",
            file=state,
            remedy="End it, or give this one another --state or --tag",
        ) from None
    print(f"log: {log}", file=sys.stderr)
    if headless:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: watched.stop())
        watched.run()
        return
    from calcamp.monitor import server

    token = server.load_token(state / "monitor.token")
    private = host not in ("127.0.0.1", "localhost", "::1")
    hosts = server.allowed_hosts(host, port, more)
    web = server.serve(server.make_app(watched, token, hosts, private), host, port)
    listening = _listen(host, port)
    looker = threading.Thread(target=watched.run, name="monitor")
    looker.start()
    shown = "127.0.0.1" if host in ("0.0.0.0", "127.0.0.1") else host
    print(f"page: http://{shown}:{port}/#token={token}", file=sys.stderr, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        # the server ends on these and raises them once more when it has ended: nothing is left to do then
        signal.signal(number, lambda *_: None)
    try:
        web.run(sockets=[listening])
    finally:
        watched.stop()
        looker.join(20)
        lock.release()
    if not web.started:
        raise typer.Exit(1)


def _listen(host: str, port: int):
    """A socket that listens before the address is printed; `InputError` when the port is taken."""
    import socket

    from calcamp.data.files import InputError

    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=200)
    except OSError as error:
        raise InputError(
            f"the page cannot be served on {host}, port {port} ({error.strerror or error})",
            remedy="Another monitor may run; give this one another --port",
        ) from error
