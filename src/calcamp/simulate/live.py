"""A session played as it would be acquired: files grow and appear at their time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from calcamp.data.explog import format_explog_header
from calcamp.data.hk import format_hk_header
from calcamp.data.names import explog_name, hk_exposure_name, hk_master_name, parse_hk_time

_PIECES, _PIECE_S = 6, 0.2  # a frame grows in so many pieces, so long apart by the clock of the acquisition
_TICK_S = 1.0  # house-keeping is written at most once per second of the wall clock


class Clock:
    """Acquisition time that runs `speed` times as fast as the wall clock."""

    def __init__(self, start: datetime, speed: float, sleep=time.sleep, now=time.monotonic):
        self._start, self._speed, self._sleep, self._now = start, speed, sleep, now
        self._begin = now()

    def wait_until(self, moment: datetime) -> None:
        """Return when the acquisition has come to `moment`."""
        left = (moment - self._start).total_seconds() / self._speed - (self._now() - self._begin)
        if left > 0:
            self._sleep(left)

    @property
    def tick(self) -> timedelta:
        """Acquisition time of one tick."""
        return timedelta(seconds=max(1.0, _TICK_S * self._speed))


def append(path: Path, header: str, lines: list[str], eol: str, complete: bool = True) -> None:
    """Append lines as ELVIS does, header first when the file is new."""
    text = "".join(line + eol for line in lines)
    if not complete:
        text = text[: len(text) - len(eol) - len(lines[-1]) // 2]
    with open(path, "a", encoding="utf-8", newline="") as stream:
        if stream.tell() == 0:
            text = header + eol + text
        stream.write(text)


def grow_file(source: Path, target: Path, pieces: int, pause: Callable[[], None]) -> None:
    """Copy a file piece by piece: what looks for whole files sees it grow."""
    data = source.read_bytes()
    step = max(1, -(-len(data) // pieces))
    with open(target, "wb", buffering=0) as stream:
        for first in range(0, len(data), step):
            stream.write(data[first : first + step])
            pause()


def grow_log(path: Path, header: str, lines: list[str], eol: str, pause: Callable[[], None]) -> None:
    """Append lines to an EXP-LOG in pieces that end inside a line, as a buffered writer does."""
    text = "".join(line + eol for line in lines)
    cuts = [0, *(len(text) * n // 4 + 7 for n in range(1, 4)), len(text)]
    for first, last in pairwise(cuts):
        with open(path, "a", encoding="utf-8", newline="") as stream:
            if stream.tell() == 0:
                stream.write(header + eol)
            stream.write(text[first:last])
        pause()


def play(
    work, speed: float, eol: str, write, lines_of_hk, lines_of_log, progress: Callable | None, clock=None
) -> dict:
    """Play jobs in their order; returns the records as the plain run does.

    House-keeping grows while an exposure lasts (its own file and the master); at its end the images
    appear, then the lines of the EXP-LOG.
    """
    records: dict[int, dict] = {}
    clock = clock or Clock(work[0].exposure.start, speed)
    for job in work:
        exposure = job.exposure
        clock.wait_until(exposure.start)
        own = None
        if not any(f.name == "missing_hk" and f.hits(exposure.obsid) for f in job.faults):
            own = job.folder / hk_exposure_name(exposure.obsid, exposure.start)
        _grow_hk(job.folder, own, lines_of_hk(job), clock, eol)
        # Made beside the day-folder; the files then grow in it, as a read-out writes them.
        with tempfile.TemporaryDirectory(dir=job.folder.parent, prefix=".live_") as staging:
            records[exposure.obsid] = write(replace(job, folder=Path(staging)), False)
            clock.wait_until(exposure.end)
            for path in sorted(Path(staging).iterdir()):
                grow_file(path, job.folder / path.name, _PIECES, lambda: time.sleep(_PIECE_S / speed))
        partial = job is work[-1] and any(fault.name == "log_partial_line" for fault in job.faults)
        log = job.folder / explog_name(exposure.start.date())
        if partial:
            append(log, format_explog_header(), lines_of_log(job), eol, complete=False)
        else:
            grow_log(
                log, format_explog_header(), lines_of_log(job), eol, lambda: time.sleep(_PIECE_S / speed)
            )
        if progress:
            progress(len(records), len(work), f"{exposure.test} {exposure.obsid}")
    return records


def _grow_hk(folder: Path, own: Path | None, lines: list[str], clock: Clock, eol: str) -> None:
    first = 0
    while first < len(lines):
        begin = parse_hk_time(lines[first].split("\t", 1)[0])
        last = min(len(lines), first + max(1, int(clock.tick.total_seconds())))
        clock.wait_until(begin + timedelta(seconds=last - first))
        some = lines[first:last]
        if own is not None:
            append(own, format_hk_header(), some, eol)
        for day in sorted({parse_hk_time(line.split("\t", 1)[0]).date() for line in some}):
            of_day = [line for line in some if parse_hk_time(line.split("\t", 1)[0]).date() == day]
            append(folder / hk_master_name(day), format_hk_header(), of_day, eol)
        first = last
