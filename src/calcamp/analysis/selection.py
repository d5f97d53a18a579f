"""Which frames are fit to be used: rules per (frame, quadrant), with the cause of each exclusion.

The thresholds decide what is measured, they are not limits: a frame out of limits is used and flagged, a frame
that is not what it says (no data, lamp off, a jump of the offset, another noise) is left out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from calcamp.analysis.statistics import NAN, about


@dataclass(frozen=True)
class FrameQuality:
    """What is known about one quadrant of one frame. NaN where not measured: that rule is then not applied."""

    obsid: int = field(metadata=about("", "exposure"))
    ccd: int = field(metadata=about("", "1 to 3"))
    quadrant: str = field(metadata=about("", "E to H"))
    column: int = field(default=1, metadata=about("", "column of the test: like exposures"))
    read_mode: str = field(default="", metadata=about("", "offset and noise are compared within a read mode"))
    offset: float = field(default=NAN, metadata=about("ADU", "clipped mean of the prescan"))
    noise: float = field(default=NAN, metadata=about("ADU", "clipped noise of the prescan"))
    noise_err: float = field(default=NAN, metadata=about("ADU", "its standard error"))
    level: float = field(default=NAN, metadata=about("ADU", "image above offset"))
    expected_level: float = field(default=NAN, metadata=about("ADU", "commanded, 0 for dark frames"))
    lost_fraction: float = field(default=0.0, metadata=about("1", "share of pixels at 0"))
    truncated: bool = field(default=False, metadata=about("", "the file ends early or could not be read"))

    @classmethod
    def from_row(cls, row: Mapping) -> FrameQuality:
        """From a table row; unknown keys are left aside, None becomes NaN."""
        known = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        return cls(**{name: NAN if value is None else value for name, value in known.items()})


@dataclass(frozen=True)
class Thresholds:
    """When a frame is left out. Documented so that a person may dispute them."""

    lost_fraction: float = field(default=1e-3, metadata=about("1", "two rows of a quadrant: dropped rows"))
    offset_adu: float = field(
        default=20.0,
        metadata=about("ADU", "jump against neighbouring frames; real drifts are a few ADU a test"),
    )
    noise_relative: float = field(
        default=0.15, metadata=about("1", "noise against that of the other frames; its own error is 0.5 %")
    )
    level_relative: float = field(
        default=0.2, metadata=about("1", "level against like exposures; lamps drift by a few per cent")
    )
    level_adu: float = field(
        default=20.0, metadata=about("ADU", "the same for levels near 0: light in a dark")
    )
    lamp_off: float = field(
        default=0.1, metadata=about("1", "share of the expected level below which the lamp was off")
    )
    sigma: float = field(
        default=8.0, metadata=about("1", "and at least so many robust scatters of the group")
    )
    neighbours: int = field(
        default=5, metadata=about("", "frames before and after that make the local median")
    )


@dataclass(frozen=True)
class Selected:
    """Verdict on one quadrant of one frame."""

    obsid: int = field(metadata=about("", "exposure"))
    ccd: int = field(metadata=about("", "1 to 3"))
    quadrant: str = field(metadata=about("", "E to H"))
    use: bool = field(metadata=about("", "fit for measurements"))
    cause: str = field(default="", metadata=about("", "why it is left out, or a note when it is used"))


def select(frames: Iterable[FrameQuality], thresholds: Thresholds | None = None) -> list[Selected]:
    """Decide on every (frame, quadrant), in the order given.

    Absolute rules come first (unreadable, all pixels 0, dropped rows, lamp off against the expected level).
    Among the rest, per CCD and quadrant in order of OBSID: offset against the median of up to 5 frames before
    and after, of one read mode, so that slow drifts pass; noise against the median of the read mode; level
    against the median of the column. Three frames are enough to find one that differs. Where half of a group or
    more would go (two frames that disagree, two against two) none goes, because nothing tells which are right;
    the cause then holds a note.
    """
    frames = list(frames)
    limits = thresholds or Thresholds()
    causes: list[list[str]] = [_absolute(frame, limits) for frame in frames]
    notes: list[list[str]] = [[] for _ in frames]
    rules = (
        (lambda f: (f.ccd, f.quadrant, f.read_mode), _offset_outliers),
        (lambda f: (f.ccd, f.quadrant, f.read_mode), _noise_outliers),
        (lambda f: (f.ccd, f.quadrant, f.column), _level_outliers),
    )
    for key, rule in rules:
        groups = defaultdict(list)
        for index, frame in enumerate(frames):
            if not causes[index]:
                groups[key(frame)].append(index)
        for members in groups.values():
            members.sort(key=lambda index: frames[index].obsid)
            found = rule([frames[index] for index in members], limits)
            undecided = 2 * sum(text is not None for text in found) >= len(members)
            for index, text in zip(members, found, strict=True):
                if text is not None:
                    (notes if undecided else causes)[index].append(text)
    return [
        Selected(
            frame.obsid,
            frame.ccd,
            frame.quadrant,
            use=not cause,
            cause="; ".join(cause) or "; ".join(f"{note} (kept: frames disagree)" for note in note_list),
        )
        for frame, cause, note_list in zip(frames, causes, notes, strict=True)
    ]


def _absolute(frame: FrameQuality, limits: Thresholds) -> list[str]:
    """Causes that need no other frame; the first one says it all."""
    if frame.truncated:
        return ["file truncated or unreadable"]
    if frame.lost_fraction > 0.99:
        return ["all pixels are 0"]
    if frame.lost_fraction > limits.lost_fraction:
        return [f"{100 * frame.lost_fraction:.2g} % of the pixels are 0 (dropped rows)"]
    # Only exposures that promise a clear signal can miss it.
    if frame.expected_level > 10 * limits.level_adu and frame.level < limits.lamp_off * frame.expected_level:
        return [f"lamp off: level {frame.level:.0f} ADU, expected {frame.expected_level:.0f}"]
    return []


def _offset_outliers(frames: list[FrameQuality], limits: Thresholds) -> list[str | None]:
    values = np.array([frame.offset for frame in frames], float)
    deviation = values - _local_median(values, limits.neighbours)
    return _texts(
        deviation, np.maximum(limits.offset_adu, limits.sigma * _scatter(deviation)), "offset {:+.1f} ADU off"
    )


def _noise_outliers(frames: list[FrameQuality], limits: Thresholds) -> list[str | None]:
    values = np.array([frame.noise for frame in frames], float)
    errors = np.nan_to_num(np.array([frame.noise_err for frame in frames], float))
    middle = _median(values)
    if not middle > 0:
        return [None] * len(frames)
    deviation = values - middle
    scatter = np.hypot(_scatter(deviation), errors)
    most = np.maximum(limits.noise_relative * middle, limits.sigma * scatter)
    return _texts(deviation, most, "noise {:+.2f} ADU off")


def _level_outliers(frames: list[FrameQuality], limits: Thresholds) -> list[str | None]:
    values = np.array([frame.level for frame in frames], float)
    middle = _median(values)
    deviation = values - middle
    least = max(limits.level_adu, limits.level_relative * abs(middle)) if math.isfinite(middle) else math.inf
    texts = _texts(deviation, np.maximum(least, limits.sigma * _scatter(deviation)), "level {:+.0f} ADU off")
    dark = values < limits.lamp_off * middle
    return [
        "lamp off: no light among like exposures" if text and off and middle > 10 * limits.level_adu else text
        for text, off in zip(texts, dark, strict=True)
    ]


def _texts(deviation: np.ndarray, most, wording: str) -> list[str | None]:
    most = np.broadcast_to(most, deviation.shape)
    return [wording.format(d) if abs(d) > m else None for d, m in zip(deviation, most, strict=True)]


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else NAN


def _scatter(deviation: np.ndarray) -> float:
    """Robust scatter; 0 below 5 values, where one outlier would set it."""
    deviation = deviation[np.isfinite(deviation)]
    return 1.4826 * float(np.median(np.abs(deviation - np.median(deviation)))) if deviation.size >= 5 else 0.0


def _local_median(values: np.ndarray, neighbours: int) -> np.ndarray:
    """Median of each value and its neighbours."""
    return np.array(
        [_median(values[max(0, i - neighbours) : i + neighbours + 1]) for i in range(len(values))]
    )
