"""House-keeping of a day-folder: followed on disk, kept as numbers, judged row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calcamp.data.files import InputError
from calcamp.data.follow import Follower
from calcamp.data.hk import HKParser, find_hk_masters
from calcamp.monitor.alarms import DIFFERS, HIGH, INSIDE, LOW, NO_VALUE, Reading

EPOCH = datetime(1970, 1, 1)
_CHUNK = 1 << 21  # bytes of a file taken at a time: a day of house-keeping is 50 MB
_MOST_CHUNKS = 64  # taken from one file in one look, so that a huge file of garbage stops nothing
_SLACK = 1e-9  # as calcamp.quality.limits: room for rounding
_KINDS = (INSIDE, LOW, HIGH, DIFFERS, NO_VALUE)


class QuickParser(HKParser):
    """`HKParser` with a short way for lines that hold nothing but plain numbers."""

    def _reading(self, text):
        cells = text.split("\t")
        if len(cells) == len(self.keys) + 1 and len(text) < 4000 and text.isascii():
            body = text[len(cells[0]) :]
            if "_" not in body:
                try:
                    numbers = list(map(float, cells[1:]))
                except ValueError:
                    return super()._reading(text)
                time = self.time(cells[0])
                if time is not None and math.isfinite(sum(numbers)):
                    return time, numbers
        return super()._reading(text)


class History:
    """Readings of a day: times in seconds (acquisition clock, as if UTC), values [row, key].

    Parameters
    ----------
    dtype : of the values kept. float32 saves half the memory; judge the rows that `add` returns, or `last`,
        for a reading on its limit is out of it when rounded.
    most : rows kept (a day at 1 s, `FULL`, and some hours until they are thinned); of older ones the lowest and the highest
        of every 20, so that a monitor that runs for weeks stays small. None: all.
    """

    FULL, BIN = 86_400, 20

    def __init__(self, dtype=np.float32, most: int | None = 100_000):
        self.keys: list[str] = []
        self.n = 0
        self.total = 0  # rows that came
        self.last = np.empty(0)  # last row, float64
        self._dtype, self._most = dtype, most
        self._thinned = 0
        self._times = np.empty(1024)
        self._values = np.empty((1024, 0), dtype)

    @property
    def times(self) -> np.ndarray:
        return self._times[: self.n]

    @property
    def values(self) -> np.ndarray:
        return self._values[: self.n]

    def columns(self, keys: list[str]) -> list[int]:
        """Positions of `keys`; new keys get a column of NaN."""
        new = [key for key in dict.fromkeys(keys) if key and key not in self.keys]
        if new:
            self.keys = [*self.keys, *new]
            wider = np.full((len(self._values), len(new)), np.nan, self._dtype)
            self._values = np.concatenate([self._values, wider], axis=1)
            self.last = np.append(self.last, np.full(len(new), np.nan))
        return [self.keys.index(key) if key else -1 for key in keys]

    def add(self, keys: list[str], times: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Append rows; returns them as float64 [row, key of this history]."""
        where = self.columns(keys)
        kept = [i for i, column in enumerate(where) if column >= 0]
        block = np.full((len(times), len(self.keys)), np.nan)
        block[:, [where[i] for i in kept]] = values[:, kept]
        need = self.n + len(times)
        if need > len(self._times):
            # a quarter more each time: a day of rows costs 30 MB, not twice that
            room = max(need, int(1.25 * len(self._times)) + 1024)
            self._times = np.concatenate([self._times[: self.n], np.empty(room - self.n)])
            grown = np.empty((room, len(self.keys)), self._dtype)
            grown[: self.n] = self._values[: self.n]
            self._values = grown
        self._times[self.n : need] = times
        with np.errstate(over="ignore"):
            small = block.astype(self._dtype)
        small[~np.isfinite(small)] = np.nan
        self._values[self.n : need] = small
        self.n = need
        self.total += len(times)
        self.last = block[-1]
        if self._most is not None and self.n > self._most:
            self._thin()
        return block

    def _thin(self) -> None:
        """Of the rows older than the last `FULL` that were not thinned yet, keep two of every `BIN`."""
        first, stop = self._thinned, self.n - self.FULL
        stop -= (stop - first) % self.BIN
        times, values = _extremes(
            self._times[first:stop], self._values[first:stop], np.arange(0, stop - first, self.BIN)
        )
        self._thinned = first + len(times)
        end = self._thinned + self.n - stop
        self._times[first : self._thinned], self._values[first : self._thinned] = times, values
        self._times[self._thinned : end] = self._times[stop : self.n]  # numpy minds the overlap
        self._values[self._thinned : end] = self._values[stop : self.n]
        self.n = end

    def decimated(
        self, keys: list[str], start: float | None, end: float | None, points: int = 800
    ) -> tuple[np.ndarray, np.ndarray]:
        """Times and values [time, key] in a span, at most about `points`: lowest and highest of each bin."""
        columns = [self.keys.index(key) for key in keys]
        times = self.times
        order = None
        if len(times) > 1 and (np.diff(times) < 0).any():
            order = np.argsort(times, kind="stable")
            times = times[order]
        first = 0 if start is None else int(np.searchsorted(times, start))
        last = len(times) if end is None else int(np.searchsorted(times, end, "right"))
        rows = slice(first, last) if order is None else order[first:last]
        times = times[first:last]
        values = self.values[rows][:, columns]
        if len(times) <= points:
            return times, values.astype(float)
        edges = np.linspace(0, len(times), points // 2 + 1).astype(int)[:-1]
        return _extremes(times, values, edges)


def _extremes(times: np.ndarray, values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two rows per bin: the lowest values at its first time, the highest at its last."""
    out = np.empty((2 * len(edges), values.shape[1]))
    out[0::2] = np.fmin.reduceat(values, edges, axis=0)
    out[1::2] = np.fmax.reduceat(values, edges, axis=0)
    ends = np.append(edges[1:], len(times)) - 1
    stamps = np.empty(2 * len(edges))
    stamps[0::2], stamps[1::2] = times[edges], times[ends]
    return stamps, out


class Bounds:
    """Safe limits as arrays in the order of some keys; judging is array work, equal to ``judge_value``."""

    def __init__(self, keys: list[str], limits: dict):
        self.keys = list(keys)
        n = len(self.keys)
        self.low, self.high = np.full(n, -np.inf), np.full(n, np.inf)
        self.identity = np.zeros(n, bool)
        self.allowed: set[tuple[int, float]] = set()  # further right values of identities
        self.texts: list[str] = [""] * n
        self.severity = np.zeros((n, len(_KINDS)), int)
        for i, key in enumerate(self.keys):
            limit = limits.get(key)
            if limit is None or limit.safe is None:
                continue
            band = limit.safe
            if band.type == "identity":
                numbers = sorted({float(v) for v in band.values if isinstance(v, int | float)})
                if not numbers:  # texts only: a reading is a number, nothing to compare with
                    continue
                self.low[i], self.high[i] = numbers[0], numbers[-1]
                self.identity[i] = True
                self.allowed.update({(i, number) for number in numbers[1:]})
                self.texts[i] = "= " + " or ".join(f"{number:.15g}" for number in numbers)
            else:
                self.low[i], self.high[i] = band.low, band.high
                self.texts[i] = f"{band.low:g} … {band.high:g}"
            self.severity[i, 1], self.severity[i, 2] = limit.severity_of(-1), limit.severity_of(1)

    @property
    def watched(self) -> np.ndarray:
        """Keys that have limits."""
        return np.isfinite(self.low) | np.isfinite(self.high)

    def judge(self, values: np.ndarray) -> np.ndarray:
        """Kind of every reading, as a position in the list of kinds; values [row, key]."""
        with np.errstate(invalid="ignore"):
            under = values < self.low - _SLACK * np.maximum(1, np.abs(self.low))
            over = values > self.high + _SLACK * np.maximum(1, np.abs(self.high))
            kinds = np.where(under, 1, np.where(over, 2, 0))
            kinds = np.where(self.identity & (values != self.low), 3, kinds)
        for i, number in self.allowed:
            kinds[:, i] = np.where(values[:, i] == number, 0, kinds[:, i])
        kinds = np.where(np.isnan(values) & self.watched, 4, kinds)
        return kinds

    def excess(self, values: np.ndarray) -> np.ndarray:
        """How far out, in widths of the band (any distance counts for an identity)."""
        width = np.where(self.identity, 1.0, self.high - self.low)
        width = np.where(np.isfinite(width) & (width > 0), width, 1.0)
        with np.errstate(invalid="ignore"):
            away = np.maximum(self.low - values, values - self.high) / width
        return np.where(np.isfinite(away), np.maximum(away, 0.0), 0.0)

    def near(self, values: np.ndarray, fraction: float) -> np.ndarray:
        """Inside, yet within a fraction of the band's width of a bound."""
        edge = fraction * (self.high - self.low)
        with np.errstate(invalid="ignore"):
            close = (values - self.low < edge) | (self.high - values < edge)
        return close & ~self.identity & np.isfinite(self.low) & np.isfinite(self.high)

    def readings(self, values: np.ndarray, always: set[str]) -> list[Reading]:
        """One `Reading` per key that was out at any time in these rows, or is in `always`."""
        kinds = self.judge(values)
        bad = kinds > 0
        touched = bad.any(axis=0) | np.array([key in always for key in self.keys], bool)
        if not touched.any():
            return []
        excess = self.excess(values)
        out = []
        for i in np.flatnonzero(touched & self.watched):
            column, severities = kinds[:, i], self.severity[i, kinds[:, i]]
            rows = np.flatnonzero(column)
            last = int(column[-1])
            if len(rows):
                peak = max(rows, key=lambda r: (severities[r], excess[r, i]))
                worst = max(rows, key=lambda r: excess[r, i])
                tail = (
                    _KINDS[column[peak]],
                    int(severities[peak]),
                    _number(values[worst, i]),
                    float(excess[worst, i]),
                )
            else:
                tail = (INSIDE, 0, None, 0.0)
            out.append(
                Reading(
                    self.keys[i],
                    _KINDS[last],
                    int(self.severity[i, last]),
                    _number(values[-1, i]),
                    *tail,
                    self.texts[i],
                )
            )
        return out


def _number(value) -> float | None:
    value = float(value)
    return value if np.isfinite(value) else None


class Fresh(NamedTuple):
    """Rows that came since the last look and were not judged before."""

    values: np.ndarray  # float64 [row, key of the history]
    rows: int  # all new rows, judged before or not


@dataclass
class _File:
    follower: Follower
    parser: QuickParser
    rows: int = 0
    bad: str = ""
    judged: int | None = 0  # rows judged before; None: only the last one counts


@dataclass
class HouseKeepingWatch:
    """Follows the master files of a day-folder.

    ``judged`` (file name -> rows judged) comes from the state on disk: rows that came while the monitor was
    not running are judged then. Without any state only the last row there is judged.
    """

    folder: Path
    judged: dict[str, int] | None = None
    history: History = field(default_factory=History)
    files: dict[str, _File] = field(default_factory=dict)
    loading: bool = False

    def look(self, most: int = 4000) -> Fresh:
        """New rows, at most about `most` of them; call again while ``loading``."""
        blocks: list[np.ndarray] = []
        total = 0
        first_look = not self.files
        self.loading = False
        for path in find_hk_masters(self.folder):
            file = self.files.get(path.name)
            if file is None:
                if self.judged is not None:
                    before: int | None = self.judged.get(path.name, 0)
                else:
                    before = None if first_look else 0
                file = self.files[path.name] = _File(
                    Follower(path, chunk=_CHUNK), QuickParser(path), judged=before
                )
            for _ in range(_MOST_CHUNKS):
                if total >= most:
                    self.loading = True
                    break
                rows, block, more = self._read(file)
                total += rows
                if block is not None:
                    blocks.append(block)
                if not more:
                    break
        if not blocks:
            return Fresh(np.empty((0, len(self.history.keys))), total)
        width = len(self.history.keys)
        blocks = [
            np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=np.nan) if b.shape[1] < width else b
            for b in blocks
        ]
        return Fresh(np.concatenate(blocks), total)

    def _read(self, file: _File) -> tuple[int, np.ndarray | None, bool]:
        news = file.follower.read()
        if news.restarted:
            file.parser, file.rows, file.judged, file.bad = QuickParser(file.follower.path), 0, 0, ""
        try:
            readings = file.parser.feed(news.lines)
        except InputError as error:
            file.bad = str(error.problem)
            return 0, None, news.more
        if not readings:
            return 0, None, news.more
        times = np.array([(time - EPOCH).total_seconds() for time, _ in readings])
        values = np.array([numbers for _, numbers in readings], float)
        block = self.history.add(file.parser.keys, times, values)
        start, file.rows = file.rows, file.rows + len(readings)
        if file.judged is None:
            fresh = block[-1:] if not news.more else None
            if fresh is not None:
                file.judged = file.rows
            return len(readings), fresh, news.more
        skip = max(0, min(len(readings), file.judged - start))
        return len(readings), (block[skip:] if skip < len(readings) else None), news.more

    @property
    def positions(self) -> dict[str, int]:
        """Rows judged so far, by file name, for the state on disk."""
        return {name: max(file.rows, file.judged or 0) for name, file in self.files.items()}

    @property
    def bad_lines(self) -> int:
        return sum(len(file.parser.problems) for file in self.files.values())

    @property
    def faults(self) -> list[str]:
        return [f"{name}: {file.bad}" for name, file in self.files.items() if file.bad]
