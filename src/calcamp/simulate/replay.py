"""Data that were made before, played as an acquisition: only files are copied, so any speed can be held."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from calcamp.campaign.acquisition import raw_file
from calcamp.data.explog import find_explogs, read_explog
from calcamp.data.files import InputError
from calcamp.data.names import hk_master_name, parse_hk_time
from calcamp.simulate.live import Clock, append, grow_file, grow_log

_DEFAULT_S = 60.0  # duration of an exposure without house-keeping
HK_EVERY_S = 1.0  # of the acquisition at least, and of the wall clock


@dataclass(frozen=True)
class Taken:
    """One exposure as it lies in a made day-folder."""

    obsid: int
    test: str
    start: datetime
    frames: tuple[Path, ...]
    hk: Path | None
    hk_lines: tuple[str, ...]  # header first
    log: str  # name of its EXP-LOG
    header: str
    rows: tuple[str, ...]

    @property
    def end(self) -> datetime:
        if len(self.hk_lines) > 1:
            return parse_hk_time(self.hk_lines[-1].split("\t", 1)[0])
        return self.start + timedelta(seconds=_DEFAULT_S)


def taken(folder: Path) -> list[Taken]:
    """Exposures of a day-folder in order of their time.

    Raises
    ------
    InputError : the folder holds no EXP-LOG.
    """
    logs = find_explogs(folder)
    if not logs:
        raise InputError(
            "no EXP-LOG", file=folder, remedy="Make the data first: calcamp simulate SESSION --into DIR"
        )
    lines = {log.name: log.read_text(encoding="utf-8").splitlines() for log in logs}
    found = []
    for exposure in read_explog(logs, finished=True).exposures():
        rows = [exposure.ccds[ccd] for ccd in sorted(exposure.ccds)]
        frames = [raw_file(folder, str(row["File_name"])) for row in rows]
        hk = sorted(folder.glob(f"HK_{exposure.obsid}_*_ROE1.txt"))
        log = rows[0]["_log"]
        found.append(
            Taken(
                exposure.obsid,
                exposure.test,
                exposure.time,
                tuple(path for path in frames if path),
                hk[0] if hk else None,
                tuple(hk[0].read_text(encoding="utf-8").splitlines()) if hk else (),
                log,
                lines[log][0],
                tuple(lines[log][row["_line"] - 1] for row in rows),
            )
        )
    return sorted(found, key=lambda item: item.start)


def replay(
    source: Path,
    target: Path,
    speed: float,
    *,
    pauses: dict[int, float] | None = None,
    pieces: int = 6,
    progress: Callable[[int, int, str], None] | None = None,
    sleep=time.sleep,
    now=time.monotonic,
) -> list[Taken]:
    """Play a day-folder into another one, `speed` times as fast as it was taken.

    House-keeping grows while an exposure lasts; at its end the three frames grow in `pieces`, then the rows
    of the EXP-LOG come in pieces too. `pauses` are seconds of the acquisition, by OBSID, in which nothing
    happens after it.
    """
    target.mkdir(parents=True, exist_ok=True)
    if find_explogs(target):
        raise InputError(
            "already holds data", file=target, remedy="Remove it, or give another folder with --into"
        )
    exposures = taken(source)
    clock = Clock(exposures[0].start, speed, sleep, now)
    late = timedelta(0)
    for number, exposure in enumerate(exposures, start=1):
        clock.wait_until(exposure.start + late)
        _grow_hk(target, exposure, clock, late)
        clock.wait_until(exposure.end + late)
        for path in exposure.frames:
            grow_file(path, target / path.name, pieces, lambda: sleep(0.2 / speed))
        grow_log(
            target / exposure.log, exposure.header, list(exposure.rows), "\r\n", lambda: sleep(0.2 / speed)
        )
        late += timedelta(seconds=(pauses or {}).get(exposure.obsid, 0.0))
        if progress:
            progress(number, len(exposures), f"{exposure.test} {exposure.obsid}")
    return exposures


def _grow_hk(target: Path, exposure: Taken, clock: Clock, late: timedelta) -> None:
    """Readings second by second, or as many at once as pass in a second of the wall clock."""
    if not exposure.hk:
        return
    header, *lines = exposure.hk_lines
    step = max(1, int(clock.tick.total_seconds() / HK_EVERY_S))
    for first in range(0, len(lines), step):
        some = lines[first : first + step]
        clock.wait_until(parse_hk_time(some[-1].split("\t", 1)[0]) + late)
        append(target / exposure.hk.name, header, some, "\r\n")
        for day in sorted({parse_hk_time(line.split("\t", 1)[0]).date() for line in some}):
            of_day = [line for line in some if parse_hk_time(line.split("\t", 1)[0]).date() == day]
            append(target / hk_master_name(day), header, of_day, "\r\n")
