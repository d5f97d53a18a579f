"""A day-folder written by hand, exposure by exposure, which can be made to misbehave."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

from calcamp.campaign.structure import expected_keys
from calcamp.data.explog import format_explog_header, format_explog_row
from calcamp.data.names import explog_name, format_stamp

EOL = "\r\n"


def _header(*cards: str) -> bytes:
    return "".join(c.ljust(80) for c in (*cards, "END")).ljust(2880).encode()


def small_fits(pixels: int = 4000) -> bytes:
    """A file as ELVIS writes it, with few pixels: empty primary header, one image of 16 bits."""
    primary = _header(
        "SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    0"
    )
    image = _header(
        "XTENSION= 'IMAGE   '",
        "BITPIX  =                   16",
        "NAXIS   =                    1",
        f"NAXIS1  = {pixels:20d}",
        "PCOUNT  =                    0",
        "GCOUNT  =                    1",
    )
    return primary + image + bytes(-(-2 * pixels // 2880) * 2880)


class DayFolder:
    """Exposures and the faults of a day-folder.

    Parameters
    ----------
    folder : made if it is not there.
    first : OBSID of the first exposure.
    cadence_s : between exposures, by the clock of the acquisition.
    """

    def __init__(
        self, folder: Path, first: int = 100, cadence_s: float = 94.0, start=datetime(2019, 3, 12, 7)
    ):
        self.folder, self.obsid, self.cadence_s, self.time = folder, first, cadence_s, start
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / explog_name(start.date())

    # ---- what an acquisition does ------------------------------------------------------------------
    def expose(self, column: dict, test: str, frames: int = 1, files: bool = True, **override) -> int:
        """Take exposures of a column (``frames``, ``keys``); the last OBSID."""
        for _ in range(frames):
            values = (
                expected_keys(column, test)
                | override
                | {"ObsID": self.obsid, "date": format_stamp(self.time)}
            )
            lines = []
            for ccd in (1, 2, 3):
                name = f"EUC_{self.obsid}_{format_stamp(self.time)}_ROE1_CCD{ccd}"
                lines.append(
                    format_explog_row(values | {"CCD": f"CCD{ccd}", "ROE": "ROE1", "File_name": name})
                )
                if files:
                    (self.folder / f"{name}.fits").write_bytes(small_fits())
            self.append(*lines)
            self.obsid += 1
            self.pause(self.cadence_s)
        return self.obsid - 1

    def pause(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    def append(self, *lines: str, end: str = EOL) -> None:
        """Lines to the log as they are; the header first when it is new."""
        with self.log.open("a", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            if stream.tell() == 0:
                stream.write(format_explog_header() + EOL)
            stream.write(EOL.join(lines) + end)

    # ---- faults ------------------------------------------------------------------------------------
    def frame(self, obsid: int, ccd: int) -> Path:
        return next(self.folder.glob(f"EUC_{obsid}_*_CCD{ccd}.fits"))

    def garbage(self) -> None:
        self.append("\x00\ufffd\x07 LabVIEW error 7", "17\tEUC_17\tCCD9", "\t" * 90)

    def half_line(self) -> str:
        """Half of a copy of the last row, no line end; returns the other half."""
        row = self.log.read_bytes().decode(errors="replace").split(EOL)[-2]
        self.append(row[: len(row) // 2], end="")
        return row[len(row) // 2 :]

    def duplicate_row(self) -> None:
        self.append(self.log.read_bytes().decode(errors="replace").split(EOL)[-2])

    def replace_log(self) -> None:
        """Another file of the same name and content, as rsync makes it."""
        copy = self.log.with_suffix(".copy")
        copy.write_bytes(self.log.read_bytes())
        os.replace(copy, self.log)

    def rotate_log(self) -> None:
        """Go on in the log of the next day."""
        self.time += timedelta(days=1)
        self.log = self.folder / explog_name(self.time.date())

    def vanish(self) -> Path:
        """The disk is unmounted; `come_back` mounts it again."""
        away = self.folder.with_name(self.folder.name + ".away")
        self.folder.rename(away)
        return away

    def come_back(self) -> None:
        self.folder.with_name(self.folder.name + ".away").rename(self.folder)

    def truncate(self, obsid: int, ccd: int, part: float = 0.6) -> bytes:
        """Leave the first part of a frame; returns the rest, to be appended later."""
        path = self.frame(obsid, ccd)
        data = path.read_bytes()
        cut = int(part * len(data))
        path.write_bytes(data[:cut])
        return data[cut:]
