"""``calcamp simulate``: make the data of a session."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def simulate(
    session: Annotated[Path, typer.Argument(help="session YAML")],
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", help="data root: the session's day-folders are made in it; its own root if left out"
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option("--detector", help="detector name or file, e.g. ccd273-mini; the block's if left out"),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", help="file (.json) or folder for what went in; <data root>_truth if left out"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="equal seeds give equal bytes")] = 1,
    test: Annotated[
        list[str] | None, typer.Option("--test", help="only this test of the session; repeatable")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", help="NAME[:obsid[:ccd[:quadrant]]], repeatable; see --list-faults"),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=NUMBER of an effect, repeatable; see --list-settings"),
    ] = None,
    first_obsid: Annotated[
        int | None, typer.Option("--first-obsid", min=0, help="first OBSID, for tests without OBSID limits")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start", help="2019-03-12 or 2019-03-12T22:30:00; morning of the first day-folder if left out"
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="processes")] = 1,
    live: Annotated[
        bool, typer.Option("--live", help="let the files appear as an acquisition goes on")
    ] = False,
    speed: Annotated[
        float, typer.Option("--speed", min=0.001, help="with --live: so many times faster than real")
    ] = 1.0,
    made: Annotated[
        Path | None,
        typer.Option("--from", help="with --live: play this day-folder, made before, instead of making data"),
    ] = None,
    pause: Annotated[
        list[str] | None,
        typer.Option("--pause", help="with --from: OBSID:SECONDS of nothing after this exposure, repeatable"),
    ] = None,
    list_faults: Annotated[
        bool,
        typer.Option(
            "--list-faults",
            help="what --fault can do",
            is_eager=True,
            callback=lambda value: _list_faults(value),
        ),
    ] = False,
    list_settings: Annotated[
        bool,
        typer.Option(
            "--list-settings",
            help="what --set can change",
            is_eager=True,
            callback=lambda value: _list_settings(value),
        ),
    ] = False,
) -> None:
    """Make the data of a session: raw images, EXP-LOG and house-keeping as ELVIS writes them.

    What went in is written to a truth file outside the day-folders.

    \b
    Example:  calcamp simulate config/sessions/D11.yaml --into data --detector ccd273-mini --seed 7 --fault offset_step:17285:2:F
              calcamp simulate config/sessions/D11.yaml --live --speed 60 --from made/12_Mar_19 --into data
    """
    import sys

    from calcamp.config.lookup import load_all, load_detector
    from calcamp.simulate.session import simulate_session

    found = load_all(session)
    if made is not None:
        _replay(found.session, made, into, speed if live else None, pause or ())
        return
    asked = load_detector(detector, Path.cwd()) if detector else found.detector
    with _progress() as progress:
        done = simulate_session(
            found.session,
            found.block,
            found.chamber,
            test or (),
            into=into,
            detector=asked,
            seed=seed,
            first_obsid=first_obsid,
            start=_moment(start),
            faults=fault or (),
            truth=truth,
            settings=_settings(setting or ()),
            jobs=jobs,
            speed=speed if live else None,
            progress=progress,
        )
    for note in done.notes:
        print(f"calcamp: {note}", file=sys.stderr)
    first, last = done.exposures[0].obsid, done.exposures[-1].obsid
    folders = ", ".join(str(folder) for folder in done.folders)
    print(f"{len(done.exposures)} exposures, OBSID {first} to {last}, in {folders}")
    print(f"truth: {done.truth}")


def _replay(session, made: Path, into: Path | None, speed: float | None, pause) -> None:
    """Play a day-folder that was made before."""
    from calcamp.data.files import InputError
    from calcamp.simulate.replay import replay

    if speed is None:
        raise InputError("--from plays made data, so it needs --live")
    if session.data is None or made.name not in session.data.day_folders:
        raise InputError(
            f"the session has no day-folder {made.name}",
            file=session.file,
            remedy="Give a folder of the same name as one of data.day_folders",
        )
    pauses = {}
    for text in pause:
        obsid, colon, seconds = text.partition(":")
        if not colon or not obsid.isdecimal() or not seconds.replace(".", "", 1).isdecimal():
            raise InputError(f"--pause {text!r} is no pause", expected="OBSID:SECONDS, e.g. 17285:600")
        pauses[int(obsid)] = float(seconds)
    root = into if into is not None else session.path_to(session.data.root)
    with _progress() as progress:
        exposures = replay(made, root / made.name, speed, pauses=pauses, progress=progress)
    print(
        f"{len(exposures)} exposures, OBSID {exposures[0].obsid} to {exposures[-1].obsid}, in {root / made.name}"
    )


def _list_faults(value: bool) -> None:
    if value:
        from calcamp.simulate.faults import KINDS

        for name, kind in KINDS.items():
            where = "all exposures" if kind.default == "all" else "the middle exposure"
            where += f", CCD{kind.ccd}" if kind.ccd else ""
            where += f", quadrant {kind.quadrant}" if kind.quadrant else ""
            print(f"{name:17} {kind.text} ({where} if not said)")
        raise typer.Exit


def _list_settings(value: bool) -> None:
    if value:
        from calcamp.simulate.scene import resolve_settings

        for plugin, settings in resolve_settings().items():
            for name, default in settings.items():
                print(f"{plugin}.{name:20} {'drawn from the seed' if default is None else default}")
        raise typer.Exit


def _moment(text: str | None):
    if text is None:
        return None
    from datetime import datetime

    from calcamp.data.files import InputError
    from calcamp.simulate.schedule import DEFAULT_HOUR

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--start {text!r} is not a date", expected="2019-03-12 or 2019-03-12T22:30:00"
        ) from None
    if moment.tzinfo is not None:
        raise InputError(
            "--start takes no time zone", remedy="Give the clock of the acquisition PC, as ELVIS writes it"
        )
    return moment.replace(hour=DEFAULT_HOUR) if len(text) <= 10 else moment


def _settings(texts) -> dict[str, float]:
    from calcamp.data.files import InputError

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not equals or number != number:
            raise InputError(f"--set {text!r} is no setting", expected="KEY=NUMBER, e.g. row_noise.sigma=0.2")
        found[key.strip()] = int(number) if number.is_integer() else number
    return found


def _progress():
    """A progress bar on a terminal, nothing in a pipe."""
    import contextlib
    import sys

    @contextlib.contextmanager
    def bar():
        if not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("simulating", total=None)

            def show(done: int, total: int, text: str) -> None:
                progress.update(task, completed=done, total=total, description=text)

            yield show

    return bar()
