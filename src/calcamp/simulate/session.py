"""A session as files: day-folders with raw images, EXP-LOG and house-keeping, and the truth beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from calcamp.data import elvis
from calcamp.data.explog import find_explogs, format_explog_header, format_explog_row
from calcamp.data.files import InputError, write_atomic
from calcamp.data.hk import format_hk_header, format_hk_rows
from calcamp.data.names import explog_name, hk_exposure_name, hk_master_name
from calcamp.data.raw import write_raw
from calcamp.detector.geometry import CCDS, QUADRANTS, Detector
from calcamp.simulate.acquisition import by_date, header_cards, hk_readings, log_rows
from calcamp.simulate.exposure import Exposure
from calcamp.simulate.faults import Fault, hk_changes, parse_faults
from calcamp.simulate.live import play
from calcamp.simulate.scene import Scene, chamber_settings, resolve_settings
from calcamp.simulate.schedule import folder_for, requests_of, schedule, start_of
from calcamp.simulate.truthfile import refuse_inside, truth_path, write_truth

EOL = "\r\n"  # as ELVIS writes
_GARBAGE = ("\x00\ufffd\x07 LabVIEW error 7", "17\tEUC_17\tCCD9", "\t" * 90)


@dataclass(frozen=True)
class Job:
    """One exposure to be written, with all that a worker needs."""

    scene: Scene
    exposure: Exposure
    folder: Path
    faults: tuple[Fault, ...]


@dataclass
class Simulated:
    """What was made."""

    folders: list[Path]
    truth: Path
    exposures: list[Exposure]
    notes: list[str] = field(default_factory=list)


def simulate_session(
    session,
    block,
    chamber,
    tests: Iterable[str] = (),
    *,
    into: Path | str | None = None,
    detector: Detector,
    seed: int = 1,
    first_obsid: int | None = None,
    start: datetime | None = None,
    faults: Iterable[str | Fault] = (),
    truth: Path | str | None = None,
    settings: dict[str, object] | None = None,
    jobs: int = 1,
    speed: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Simulated:
    """Simulate the acquisition of a session. Equal arguments give equal bytes, whatever `jobs` is.

    Parameters
    ----------
    session, block, chamber : loaded by `calcamp.config.lookup`.
    tests : entries of the session to take; none: all.
    into : data root; the day-folders of the session are made in it. By default the session's own root.
    detector : CCD to simulate, e.g. ``ccd273-mini``.
    first_obsid : of the tests without OBSID limits.
    start : of the first exposure; by default the morning of the first day-folder.
    faults : ``NAME[:obsid[:ccd[:quadrant]]]``, see `calcamp.simulate.faults.KINDS`.
    truth : file or folder for what went in; by default ``<data root>_truth/``.
    settings : of plug-ins, ``{"row_noise.sigma": 0.2}``.
    jobs : processes.
    speed : the files appear as in an acquisition so many times faster than real; None: all at once.
    progress : called with (exposures done, all, name of the exposure).

    Raises
    ------
    InputError : a session that cannot be simulated, or a day-folder that already holds data.
    """
    settings = {**chamber_settings(chamber, detector), **(settings or {})}
    resolve_settings(settings)
    folders = _folders(session, into)
    target = truth_path(truth, folders[0].parent, session.session)
    refuse_inside(target, folders)
    requests, notes = requests_of(session, tuple(tests))
    if session.elvis != elvis.DEFAULT_VERSION:
        notes.append(
            f"files are written as of ELVIS {elvis.DEFAULT_VERSION}, the session says {session.elvis}"
        )
    if block.detector not in (detector.name, f"{detector.name}.yaml"):
        notes.append(
            f"simulated {detector.name}; block {block.block} says detector: {block.detector}, analyse with the same"
        )
    equipment = {"program": block.programme, **block.equipment}
    exposures, placed = schedule(
        requests, chamber, equipment, start_of(folders, start), seed, first_obsid, parse_faults(faults)
    )
    offsets = {ccd: {q: block.expected_offset(ccd, q) for q in QUADRANTS} for ccd in CCDS}
    scene = Scene(detector, seed, offsets, settings)
    work = [Job(scene, exposure, folder_for(folders, exposure.start), placed) for exposure in exposures]
    for folder in {job.folder for job in work}:
        folder.mkdir(parents=True, exist_ok=True)
    if speed is not None:
        records = play(work, speed, EOL, write_exposure, hk_lines, log_lines, progress)
    else:
        records = _run(work, jobs, progress)
        _write_masters(work)
        _write_logs(work)
    about = {
        "session": session.session,
        "block": block.block,
        "chamber": chamber.chamber,
        "serials": block.serials,
        "day_folders": [folder.name for folder in folders],
        "faults": [vars(fault) for fault in placed],
    }
    write_truth(target, scene, exposures, records, about)
    return Simulated(folders, target, exposures, notes)


def _folders(session, into: Path | str | None) -> list[Path]:
    if session.data is None:
        raise InputError("names no data of its own", file=session.file, expected="data: {root, day_folders}")
    root = Path(into) if into is not None else session.path_to(session.data.root)
    folders = [root / name for name in session.data.day_folders]
    for folder in folders:
        if find_explogs(folder):
            raise InputError(
                "already holds data", file=folder, remedy="Remove it, or give another folder with --into"
            )
    return folders


# ---- exposures -----------------------------------------------------------------------------------
def _run(work: list[Job], jobs: int, progress) -> dict[int, dict]:
    records: dict[int, dict] = {}

    def note(job: Job, record: dict) -> None:
        records[job.exposure.obsid] = record
        if progress:
            progress(len(records), len(work), f"{job.exposure.test} {job.exposure.obsid}")

    if jobs <= 1:
        for job in work:
            note(job, write_exposure(job))
        return records
    import multiprocessing

    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for job, record in zip(work, pool.map(write_exposure, [_sendable(job) for job in work]), strict=True):
            note(job, record)
    return records


def _sendable(job: Job) -> Job:
    """A copy without the drawn channels: workers draw their own, which costs less than sending them."""
    scene = job.scene
    return Job(
        Scene(scene.detector, scene.seed, scene.offsets, scene.settings), job.exposure, job.folder, job.faults
    )


_SCENES: dict[str, Scene] = {}


def _kept_scene(scene: Scene) -> Scene:
    """The scene of the last job if it is the same one: its channels are drawn already."""
    key = repr(scene)
    if key not in _SCENES:
        _SCENES.clear()
        _SCENES[key] = scene
    return _SCENES[key]


def write_exposure(job: Job, housekeeping: bool = True) -> dict:
    """Write the three images and the house-keeping file of an exposure; returns what went into each frame."""
    exposure, faults = job.exposure, job.faults
    scene = _kept_scene(job.scene)
    rows = log_rows(exposure, scene.seed)
    records = {}
    for ccd, frame, record in scene.frames(exposure):
        records[ccd] = record
        if any(f.name == "missing_fits" and f.hits(exposure.obsid, ccd) for f in faults):
            continue
        path = job.folder / f"{rows[ccd]['File_name']}.fits"
        write_raw(path, frame, header_cards(rows[ccd], exposure))
        if any(f.name == "truncated" and f.hits(exposure.obsid, ccd) for f in faults):
            with open(path, "r+b") as stream:
                stream.truncate(int(0.6 * path.stat().st_size))
    if housekeeping and not any(f.name == "missing_hk" and f.hits(exposure.obsid) for f in faults):
        _write_hk(job.folder / hk_exposure_name(exposure.obsid, exposure.start), hk_lines(job))
    return records


def hk_lines(job: Job) -> list[str]:
    """Lines of house-keeping during an exposure."""
    readings = hk_readings(job.exposure, job.scene.seed, hk_changes(job.faults, job.exposure.obsid))
    return format_hk_rows(readings, elvis.DEFAULT_VERSION)


def _write_hk(path: Path, lines: list[str]) -> None:
    write_atomic(path, EOL.join([format_hk_header(), *lines, ""]), sync=False)


# ---- day files -----------------------------------------------------------------------------------
def _write_masters(work: list[Job]) -> None:
    """Master house-keeping files: all readings of a date, in the folder in which they were taken."""
    masters: dict[Path, list[str]] = {}
    for job in work:
        readings = hk_readings(job.exposure, job.scene.seed, hk_changes(job.faults, job.exposure.obsid))
        for day, of_day in by_date(readings).items():
            masters.setdefault(job.folder / hk_master_name(day), []).extend(format_hk_rows(of_day))
    for path, lines in masters.items():
        _write_hk(path, lines)


def log_lines(job: Job) -> list[str]:
    """The three lines of the EXP-LOG, and garbage where a fault asks for it."""
    rows = log_rows(job.exposure, job.scene.seed)
    lines = [format_explog_row(rows[ccd]) for ccd in CCDS]
    if any(f.name == "log_garbage" and f.hits(job.exposure.obsid) for f in job.faults):
        lines.extend(_GARBAGE)
    return lines


def _write_logs(work: list[Job]) -> None:
    logs: dict[Path, list[str]] = {}
    for job in work:
        logs.setdefault(job.folder / explog_name(job.exposure.start.date()), []).extend(log_lines(job))
    partial = any(fault.name == "log_partial_line" for fault in work[-1].faults)
    for path, lines in logs.items():
        text = EOL.join([format_explog_header(), *lines, ""])
        if partial and path == list(logs)[-1]:
            text = text[: len(text) - len(EOL) - len(lines[-1]) // 2]
        write_atomic(path, text, sync=False)
