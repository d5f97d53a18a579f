"""Names and time stamps of ELVIS files, in both directions. Standard library only.

Stamps are local time of the acquisition PC, without a time zone. Two-digit years are read as POSIX
does (69-99 are 19xx, 00-68 are 20xx). Months are written in English whatever the locale.
"""

from __future__ import annotations

import re
from datetime import date as Date
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_STAMP = re.compile(r"(\d{2})(\d{2})(\d{2})[Dd]_?(\d{2})(\d{2})(\d{2})T", re.ASCII)
_HK_TIME = re.compile(r"(\d{2})-(\d{2})-(\d{2})_(\d{2}):(\d{2}):(\d{2})", re.ASCII)
#: A raw image: OBSID, stamp, ROE, CCD and the compression suffix, if any.
RAW_RE = re.compile(
    r"EUC_(?P<obsid>\d{1,9})_(?P<stamp>\d{6}[Dd]_?\d{6}T)_ROE(?P<roe>\d)_CCD(?P<ccd>[123])\.fits(?P<suffix>\.gz|\.fz)?",
    re.ASCII,
)
EXPLOG_RE = re.compile(r"EXP_LOG_(\d{2})(\d{2})(\d{2})\.txt", re.ASCII)
HK_EXPOSURE_RE = re.compile(
    r"HK_(?P<obsid>\d{1,9})_(?P<stamp>\d{6}[Dd]_?\d{6}T)_ROE(?P<roe>\d)\.txt", re.ASCII
)
HK_MASTER_RE = re.compile(r"HK_(\d{2})-(\d{2})-(\d{2})_ROE(\d)_(?P<part>\d{2})\.txt", re.ASCII)
_DAY_FOLDER = re.compile(r"(\d{2})_?([A-Za-z]{3})_?(\d{2})", re.ASCII)


class RawName(NamedTuple):
    """What the name of a raw image says."""

    obsid: int
    time: datetime
    ccd: int
    roe: int
    suffix: str  # '', '.gz' or '.fz'


def full_year(two_digits: int) -> int:
    """Four-digit year of a two-digit one, as POSIX reads it."""
    return two_digits + (1900 if two_digits >= 69 else 2000)


def clock_seconds(stamp: datetime | str | None) -> float:
    """Seconds since 1970 on the acquisition's own clock, of a time or an ELVIS stamp; NaN when it is none.

    Logs name no time zone: that of the computer where they are read, with its summer time, must not come in.
    """
    try:
        moment = parse_stamp(stamp) if isinstance(stamp, str) else stamp
        return (moment.replace(tzinfo=None) - datetime(1970, 1, 1)).total_seconds()
    except (ValueError, AttributeError):
        return float("nan")


def parse_stamp(text: str) -> datetime:
    """Time of ``120319D071040T``; also ``120319D_071040T`` and a small d.

    Raises
    ------
    ValueError : the text is not such a stamp, or no such day or time exists.
    """
    match = _STAMP.fullmatch(text.strip())
    if not match:
        raise ValueError(f"not a time stamp DDMMYYDhhmmssT: {text[:40]!r}")
    day, month, year, hour, minute, second = map(int, match.groups())
    return datetime(full_year(year), month, day, hour, minute, second)


def format_stamp(time: datetime) -> str:
    """``120319D071040T``."""
    return f"{time.day:02d}{time.month:02d}{time.year % 100:02d}D{time.hour:02d}{time.minute:02d}{time.second:02d}T"


def parse_hk_time(text: str) -> datetime:
    """Time of a house-keeping reading, ``12-03-19_07:10:40``; ValueError as `parse_stamp`."""
    match = _HK_TIME.fullmatch(text.strip())
    if not match:
        raise ValueError(f"not a time DD-MM-YY_hh:mm:ss: {text[:40]!r}")
    day, month, year, hour, minute, second = map(int, match.groups())
    return datetime(full_year(year), month, day, hour, minute, second)


def format_hk_time(time: datetime) -> str:
    """``12-03-19_07:10:40``."""
    return f"{time.day:02d}-{time.month:02d}-{time.year % 100:02d}_{time.hour:02d}:{time.minute:02d}:{time.second:02d}"


def raw_stem(obsid: int, time: datetime, ccd: int, roe: int = 1) -> str:
    """Name of a raw image without extension: the EXP-LOG's ``File_name``."""
    return f"EUC_{obsid}_{format_stamp(time)}_ROE{roe}_CCD{ccd}"


def parse_raw_name(name: str) -> RawName | None:
    """What a file name says, None when it is not the name of a raw image."""
    match = RAW_RE.fullmatch(name)
    if not match:
        return None
    try:
        time = parse_stamp(match["stamp"])
    except ValueError:
        return None
    return RawName(int(match["obsid"]), time, int(match["ccd"]), int(match["roe"]), match["suffix"] or "")


def day_folder_name(day: Date) -> str:
    """``12_Mar_19``."""
    return f"{day.day:02d}_{MONTHS[day.month - 1]}_{day.year % 100:02d}"


def parse_day_folder(name: str) -> Date:
    """Date of a day-folder, ``12_Mar_19`` or ``12Mar19``; ValueError when it is none."""
    match = _DAY_FOLDER.fullmatch(Path(name).name)
    month = match[2].capitalize() if match else ""
    if month not in MONTHS:
        raise ValueError(f"not the name of a day-folder DD_Mmm_YY: {name!r}")
    return Date(full_year(int(match[3])), MONTHS.index(month) + 1, int(match[1]))


def explog_name(day: Date) -> str:
    """``EXP_LOG_120319.txt``."""
    return f"EXP_LOG_{day.day:02d}{day.month:02d}{day.year % 100:02d}.txt"


def parse_explog_name(name: str) -> Date | None:
    """Date in the name of an exposure log, None when it is not one."""
    return _date_of(EXPLOG_RE.fullmatch(Path(name).name))


def hk_exposure_name(obsid: int, time: datetime, roe: int = 1) -> str:
    """``HK_17200_120319D071040T_ROE1.txt``: readings during one OBSID."""
    return f"HK_{obsid}_{format_stamp(time)}_ROE{roe}.txt"


def hk_master_name(day: Date, part: int = 1, roe: int = 1) -> str:
    """``HK_12-03-19_ROE1_01.txt``: all readings of a day."""
    return f"HK_{day.day:02d}-{day.month:02d}-{day.year % 100:02d}_ROE{roe}_{part:02d}.txt"


def parse_hk_master_name(name: str) -> tuple[Date, int] | None:
    """(date, part) of a master house-keeping file, None when it is not one."""
    match = HK_MASTER_RE.fullmatch(Path(name).name)
    day = _date_of(match)
    return None if day is None else (day, int(match["part"]))


def _date_of(match: re.Match | None) -> Date | None:
    if not match:
        return None
    try:
        return Date(full_year(int(match[3])), int(match[2]), int(match[1]))
    except ValueError:
        return None
