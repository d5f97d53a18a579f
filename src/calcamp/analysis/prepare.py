"""From a raw frame to a prepared one: data above offset, data quality, variance on demand.

One function serves the sub-tasks that stream frames and the rule that writes prepared images. A frame is
held once: quadrants are views of it, and the data-quality plane is shared between frames that have nothing
of their own to flag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial

import numpy as np

from calcamp.analysis.offset import Offsets, measure_offsets
from calcamp.analysis.profiles import grow_mask
from calcamp.analysis.statistics import ROUNDING, about
from calcamp.analysis.sums import bands
from calcamp.detector.arrays import canonical, quadrant_view
from calcamp.detector.dq import BADMASK, DQ
from calcamp.detector.geometry import QUADRANTS, Detector, flips

#: Flat response at and below which a pixel cannot be divided.
FLAT_LEAST = 0.1
#: What `prepare` does when an option is not given.
DEFAULTS = {
    "offset": "row",
    "scan": "pre",
    "use_mask": True,
    "use_bias": True,
    "use_flat": True,
    "cosmics": False,
}


class PrepareError(ValueError):
    """A product or an option that cannot be applied to this frame; the text says why."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A calibration image in stored orientation, with what is known about it."""

    data: np.ndarray = field(metadata=about("ADU or 1", "bias above its offset, or relative response"))
    error: np.ndarray | None = field(default=None, metadata=about("as data", "standard error per pixel"))
    dq: np.ndarray | None = field(
        default=None, metadata=about("bits", "uint32 data quality, ORed into the frame's")
    )
    offset: str | None = field(default=None, metadata=about("", "offset method it was made with"))
    scan: str | None = field(default=None, metadata=about("", "scan it was made with"))
    name: str = field(default="", metadata=about("", "what the steps call it, e.g. the file name"))


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is common to all frames of a test on one CCD, worked out once by `calibration`."""

    base: Callable[[], np.ndarray] = field(metadata=about("bits", "NON_IMAGE in the scans, read-only"))
    added: list[np.ndarray] = field(metadata=about("bits", "data quality of the products, stored frame"))
    bias: Plane | None = field(metadata=about("", "bias with invalid pixels at 0"))
    flat: Plane | None = field(metadata=about("", "flat with 1 in the scans and at invalid pixels"))
    window: tuple[int, int] = field(metadata=about("rows", "canonical rows read, [first, last)"))

    @property
    def has_mask(self) -> bool:
        """Whether bits beside NON_IMAGE may be set."""
        return bool(self.added)

    @cached_property
    def dq(self) -> np.ndarray:
        """Static data quality, stored frame, read-only; made when it is first asked for."""
        if not self.added:
            return self.base()
        static = self.base().copy()
        for plane in self.added:
            static |= plane
        static.flags.writeable = False
        return static


@dataclass(frozen=True, eq=False)
class OnDemand:
    """A canonical quadrant above offset and bias, over the flat, made from the raw pixels where it is looked at.

    For stacks: ten frames as raw pixels take half the memory, and memory used for the first time is dear.
    """

    raw: np.ndarray = field(metadata=about("ADU", "uint16, canonical view"))
    offset: np.ndarray = field(metadata=about("ADU", "float32, one per row"))
    bias: np.ndarray | None = field(default=None, metadata=about("ADU", "float32, canonical view"))
    flat: np.ndarray | None = field(default=None, metadata=about("1", "float32, canonical view"))

    @property
    def shape(self) -> tuple[int, int]:
        return self.raw.shape

    def window(self, rows: slice, columns: slice) -> OnDemand:
        """The same of an area."""
        bias, flat = (None if p is None else p[rows, columns] for p in (self.bias, self.flat))
        return OnDemand(self.raw[rows, columns], self.offset[rows], bias, flat)

    def __getitem__(self, key) -> np.ndarray:
        """float32 pixels of rows, of (rows, columns), or at index arrays (row, column)."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        pixels = self.raw[rows, columns].astype(np.float32)
        offset = self.offset[rows]
        pixels -= offset[:, None] if isinstance(rows, slice) else offset
        if self.bias is not None:
            pixels -= self.bias[rows, columns]
        if self.flat is not None:
            pixels /= self.flat[rows, columns]
        return pixels

    def into(self, out: np.ndarray) -> np.ndarray:
        """All pixels, in an array of this shape that is used again and again."""
        for rows in bands(len(out)):
            part = out[rows]
            np.copyto(part, self.raw[rows])  # cast and subtraction apart: faster than one mixed operation
            part -= self.offset[rows, None]
            if self.bias is not None:
                part -= self.bias[rows]
            if self.flat is not None:
                part /= self.flat[rows]
        return out


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared frame of one CCD. `data` holds canonical views of `frame`."""

    frame: np.ndarray | None = field(
        metadata=about("ADU", "float32, stored orientation, above offset; None when `data` are OnDemand")
    )
    data: dict[str, np.ndarray | OnDemand] = field(metadata=about("ADU", "canonical view per quadrant"))
    own: dict[str, np.ndarray | None] = field(
        metadata=about("bits", "SATURATED, LOST and NO_OFFSET of this frame per quadrant, None without any")
    )
    offsets: dict[str, Offsets] = field(
        metadata=about("ADU", "offset per row, level, noise and test per quadrant")
    )
    lost: dict[str, int] = field(metadata=about("1", "pixels at 0 in the rows read, all columns"))
    saturated: dict[str, int] = field(
        metadata=about("1", "pixels at or above the saturation level, not grown")
    )
    steps: list[str] = field(metadata=about("", "what was done, in order, for headers"))
    detector: Detector = field(metadata=about("", "geometry"))
    calibration: Calibration = field(metadata=about("", "products applied"))
    dq_out: np.ndarray | None = field(default=None, metadata=about("", "where `dq_frame` may be written"))

    @property
    def shares_dq(self) -> bool:
        """Whether this frame has nothing of its own to flag: the data quality is that of all frames."""
        return all(bits is None for bits in self.own.values())

    @cached_property
    def dq_frame(self) -> np.ndarray:
        """Data quality, uint32, stored orientation; made when it is first asked for, read-only while shared."""
        if self.shares_dq:
            return self.calibration.dq
        plane = np.empty(self.detector.ccd_shape, np.uint32) if self.dq_out is None else self.dq_out
        np.copyto(plane, self.calibration.dq)
        for quadrant, bits in self.own.items():
            if bits is not None:
                quadrant_view(plane, quadrant, self.detector)[...] |= bits
        return plane

    @cached_property
    def dq(self) -> dict[str, np.ndarray]:
        """Canonical view of `dq_frame` per quadrant."""
        return {q: quadrant_view(self.dq_frame, q, self.detector) for q in self.own}

    def image(self, quadrant: str) -> np.ndarray | OnDemand:
        """Canonical view of the image area, shape ``detector.image_shape``, ADU."""
        return self.area(quadrant, *_image(self.detector))

    def area(self, quadrant: str, rows: slice, columns: slice) -> np.ndarray | OnDemand:
        """Canonical view of an area, ADU."""
        data = self.data[quadrant]
        return data.window(rows, columns) if isinstance(data, OnDemand) else data[rows, columns]

    def mask(self, quadrant: str, bits: int = BADMASK) -> np.ndarray:
        """True where a pixel of the canonical quadrant has one of `bits`; off-window rows are always true."""
        mask = (self.dq[quadrant] & np.uint32(bits)) != 0
        first, last = self.calibration.window
        mask[:first] = True
        mask[last:] = True
        return mask

    def image_mask(self, quadrant: str, bits: int = BADMASK) -> np.ndarray:
        """As `mask`, for the image area only."""
        rows, columns = _image(self.detector)
        if self.shares_dq and not self.calibration.has_mask and not int(bits) & ~int(BADMASK):
            mask = np.zeros(
                self.detector.image_shape, bool
            )  # neither a product nor this frame has a bad pixel
        else:
            mask = (self.dq[quadrant][rows, columns] & np.uint32(bits)) != 0
        first, last = self.calibration.window
        mask[:first] = True
        mask[last:] = True
        return mask

    def invalid(self, quadrant: str) -> np.ndarray:
        """Flat indices in the canonical quadrant of pixels without a valid value in this frame."""
        bits = self.own[quadrant]
        return np.empty(0, np.intp) if bits is None else np.flatnonzero(bits)

    def variance(
        self,
        quadrant: str,
        gain: float,
        read_noise: float | None = None,
        region: tuple[slice, slice] | None = None,
    ) -> np.ndarray:
        """Variance per pixel, ADU², float32, canonical: made on demand from the stored terms.

        (read noise² + 1/12 + max(signal, 0)/gain + offset error² + bias error²)/flat² + (signal flat error)²,
        signal in ADU before the flat, gain in e-/ADU.

        Parameters
        ----------
        gain : float
            e-/ADU.
        read_noise : float, optional
            ADU; that of the scan pixels of this frame by default.
        region : (slice, slice), optional
            Canonical rows and columns; the whole quadrant by default.
        """
        offsets = self.offsets[quadrant]
        rows, columns = region or (slice(None), slice(None))
        noise = offsets.noise if read_noise is None else read_noise
        if not math.isfinite(noise):
            raise PrepareError(f"quadrant {quadrant}: no read noise was measured, give one")
        signal = self.data[quadrant][rows, columns]
        if offsets.method == "none":
            signal = signal - np.float32(offsets.level)
        flat, bias = self.calibration.flat, self.calibration.bias
        response = None if flat is None else quadrant_view(flat.data, quadrant, self.detector)[rows, columns]
        if response is not None:
            signal = signal * response
        variance = np.maximum(signal, np.float32(0.0))
        variance *= np.float32(1.0 / gain)
        constant = noise**2 + ROUNDING + np.square(np.nan_to_num(offsets.err[rows]))
        variance += constant.astype(np.float32)[:, None]
        if bias is not None and bias.error is not None:
            variance += np.square(quadrant_view(bias.error, quadrant, self.detector)[rows, columns])
        if response is not None:
            if flat.error is not None:
                error = quadrant_view(flat.error, quadrant, self.detector)[rows, columns]
                variance += np.square(signal * error / response)
            variance /= np.square(response)
        return variance

    def with_own_dq(self) -> Prepared:
        """The same frame with a data-quality plane of its own, writable (for cosmic rays)."""
        if self.dq_frame.flags.writeable:
            return self
        made = replace(self)
        made.__dict__["dq_frame"] = self.dq_frame.copy()
        return made


def _image(detector: Detector) -> tuple[slice, slice]:
    return detector.region("img", trimmed=False)


@lru_cache(maxsize=2)
def _base_dq(sizes: tuple[int, ...], first: int, last: int) -> np.ndarray:
    """NON_IMAGE in scans and rows not read, stored orientation, read-only."""
    prescan, image_columns, overscan, image_rows, parallel_overscan = sizes
    rows, columns = image_rows + parallel_overscan, prescan + image_columns + overscan
    frame = np.full((2 * rows, 2 * columns), DQ.NON_IMAGE, np.uint32)
    detector = Detector(
        "",
        prescan=prescan,
        image_columns=image_columns,
        overscan=overscan,
        image_rows=image_rows,
        parallel_overscan=parallel_overscan,
    )
    for quadrant in QUADRANTS:
        view = quadrant_view(frame, quadrant, detector)
        view[first : min(last, image_rows), prescan : prescan + image_columns] = 0
    frame.flags.writeable = False
    return frame


def calibration(
    detector: Detector,
    *,
    dq: np.ndarray | None = None,
    bias: np.ndarray | Plane | None = None,
    flat: np.ndarray | Plane | None = None,
    vstart: int = 0,
    vend: int | None = None,
) -> Calibration:
    """Work out once what all frames of a CCD share; give it to `prepare` as ``calibration=``.

    Parameters are those of `prepare`. Pixels of `bias` that are not finite get MASKED and are left as they are;
    pixels of `flat` that are not finite or at most 0.1 get FLAT_INVALID and are divided by 1, as are the scans.
    """
    first, last = detector.read_rows(vstart, vend)
    sizes = (
        detector.prescan,
        detector.image_columns,
        detector.overscan,
        detector.image_rows,
        detector.parallel_overscan,
    )
    bias, flat = _plane(bias, detector, "bias"), _plane(flat, detector, "flat")
    added = [_checked_dq(a, detector) for a in (dq, bias and bias.dq, flat and flat.dq) if a is not None]
    if bias is not None:
        bias, invalid = _clean_bias(bias)
        added += [invalid] if invalid is not None else []
    if flat is not None:
        flat, invalid = _clean_flat(flat, detector)
        added += [invalid] if invalid is not None else []
    return Calibration(partial(_base_dq, sizes, first, last), added, bias, flat, (first, last))


def _plane(product, detector: Detector, kind: str) -> Plane | None:
    if product is None:
        return None
    plane = product if isinstance(product, Plane) else Plane(np.asarray(product))
    if plane.data.shape != detector.ccd_shape:
        raise PrepareError(f"{kind} of shape {plane.data.shape}, the CCD has {detector.ccd_shape}")
    return plane


def _checked_dq(dq: np.ndarray, detector: Detector) -> np.ndarray:
    dq = np.asarray(dq)
    if dq.shape != detector.ccd_shape:
        raise PrepareError(f"data quality of shape {dq.shape}, the CCD has {detector.ccd_shape}")
    if dq.dtype == bool:
        return dq * np.uint32(DQ.MASKED)
    return dq.astype(np.uint32, copy=False)


def _clean_bias(bias: Plane) -> tuple[Plane, np.ndarray | None]:
    good = np.isfinite(bias.data)
    if good.all():
        return replace(bias, data=np.asarray(bias.data, np.float32), error=_as_float32(bias.error)), None
    data = np.where(good, bias.data, 0.0).astype(np.float32)
    return replace(bias, data=data, error=_as_float32(bias.error)), (~good) * np.uint32(DQ.MASKED)


def _clean_flat(flat: Plane, detector: Detector) -> tuple[Plane, np.ndarray | None]:
    """Flat with 1 outside the image area and where it is not usable."""
    data = np.ones(detector.ccd_shape, np.float32)
    invalid = np.zeros(detector.ccd_shape, np.uint32)
    for quadrant in QUADRANTS:
        source, target, flag = (
            quadrant_view(array, quadrant, detector)[_image(detector)] for array in (flat.data, data, invalid)
        )
        good = np.isfinite(source) & (source > FLAT_LEAST)
        target[good] = source[good]
        flag[~good] = DQ.FLAT_INVALID
    return replace(flat, data=data, error=_as_float32(flat.error)), invalid if invalid.any() else None


def _as_float32(error: np.ndarray | None) -> np.ndarray | None:
    return None if error is None else np.nan_to_num(np.asarray(error, np.float32), posinf=0.0, neginf=0.0)


def _options(options: Mapping | None) -> dict:
    chosen = DEFAULTS | dict(options or {})
    unknown = set(chosen) - set(DEFAULTS)
    if unknown:
        raise PrepareError(f"unknown options of prepare: {', '.join(sorted(unknown))}")
    return chosen


def prepare(
    raw: np.ndarray,
    detector: Detector,
    options: Mapping | None = None,
    *,
    dq: np.ndarray | None = None,
    bias: np.ndarray | Plane | None = None,
    flat: np.ndarray | Plane | None = None,
    vstart: int = 0,
    vend: int | None = None,
    saturation: float | Mapping[str, float] | None = None,
    grow: int = 1,
    calibration: Calibration | None = None,
    out: np.ndarray | None = None,
    dq_out: np.ndarray | None = None,
    quadrants: Sequence[str] = QUADRANTS,
    on_demand: bool = False,
) -> Prepared:
    """Prepare one raw frame of one CCD.

    Order: lost, saturated and off-window pixels flagged; offset subtracted per row; bias subtracted; image
    area divided by the flat. Cosmic rays are found elsewhere (`options["cosmics"]` is for the caller).

    Parameters
    ----------
    raw : ndarray of uint16, shape ``detector.ccd_shape``
        Stored orientation, ADU. Not changed.
    options : mapping, optional
        ``offset`` row, median, smooth or none; ``scan`` pre, ove or both; ``use_mask``, ``use_bias``,
        ``use_flat``: whether a product that is given is used.
    dq : ndarray, optional
        uint32 bits (or a boolean mask), stored orientation.
    bias, flat : ndarray or Plane, optional
        Stored orientation. A bias that says with which offset method it was made must agree with `options`.
    vstart, vend : int
        Rows commanded.
    saturation : number or mapping of quadrant to number, optional
        ADU, raw; pixels at or above are SATURATED. The detector's full scale by default.
    grow : int
        Pixels by which saturated areas are grown, in all directions.
    calibration : Calibration, optional
        Result of `calibration` for `dq`, `bias` and `flat`, which are then not looked at: the fast way for
        many frames.
    out : ndarray of float32, shape ``detector.ccd_shape``, optional
        Where the frame is written, e.g. that of an earlier frame no longer needed: saves the memory's first
        use, a quarter of the time.
    dq_out : ndarray of uint32, shape ``detector.ccd_shape``, optional
        The same for the data quality, which is written when it is asked for and the frame has bits of its own.
    quadrants : sequence of str, optional
        Those wanted; the others are left as they are in memory and cannot be asked for.
    on_demand : bool
        Data are `OnDemand` where that is possible: all rows read. `raw` must stay as it is.

    Returns
    -------
    Prepared
        Rows that were not read are 0 and NON_IMAGE; rows without offset have the quadrant's level subtracted
        and are NO_OFFSET. No value is NaN.
    """
    chosen = _options(options)
    if raw.shape != detector.ccd_shape:
        raise PrepareError(f"frame of shape {raw.shape}, the CCD has {detector.ccd_shape}")
    if calibration is None:
        calibration = _calibration(
            detector,
            dq=dq if chosen["use_mask"] else None,
            bias=bias if chosen["use_bias"] else None,
            flat=flat if chosen["use_flat"] else None,
            vstart=vstart,
            vend=vend,
        )
    elif calibration.window != detector.read_rows(vstart, vend):
        raise PrepareError(f"calibration made for rows {calibration.window}, frame has {(vstart, vend)}")
    _agree(calibration.bias, chosen)

    all_rows = calibration.window == (0, detector.rows)
    on_demand = on_demand and all_rows
    frame = np.empty(detector.ccd_shape, np.float32) if out is None and not on_demand else out
    if not on_demand and (frame.shape != detector.ccd_shape or frame.dtype != np.float32):
        raise PrepareError(
            f"out is {frame.dtype} of shape {frame.shape}, needed float32 of {detector.ccd_shape}"
        )
    found: dict[str, np.ndarray | None] = {}
    offsets, lost, saturated = {}, {}, {}
    data: dict[str, np.ndarray | OnDemand] = {}
    for quadrant in quadrants:
        mask = _scan_mask(calibration, quadrant, detector)
        offsets[quadrant] = measure_offsets(
            quadrant_view(raw, quadrant, detector),
            detector,
            chosen["offset"],
            chosen["scan"],
            vstart,
            vend,
            mask,
        )
        level = saturation.get(quadrant) if isinstance(saturation, Mapping) else saturation
        level = detector.full_scale if level is None else level
        products = (
            p and quadrant_view(p.data, quadrant, detector) for p in (calibration.bias, calibration.flat)
        )
        data[quadrant] = OnDemand(
            quadrant_view(raw, quadrant, detector), _taken_off(offsets[quadrant]), *products
        )
        if not on_demand:
            data[quadrant] = _filled(
                quadrant_view(frame, quadrant, detector), data[quadrant], calibration.window
            )
        flags = _lost_saturated(raw, quadrant, detector, calibration.window, level)
        found[quadrant], lost[quadrant], saturated[quadrant] = _flag(
            flags, offsets[quadrant], calibration.window, grow, detector.quadrant_shape
        )

    return Prepared(
        None if on_demand else frame,
        data,
        found,
        offsets,
        lost,
        saturated,
        _steps(chosen, calibration, offsets, saturation, grow, detector),
        detector,
        calibration,
        dq_out,
    )


_calibration = calibration  # `prepare` has an argument of that name


def _agree(bias: Plane | None, chosen: dict) -> None:
    """A bias carries its own offset: the frame's must be taken in the same way."""
    if bias is None:
        return
    for key, made in (("offset", bias.offset), ("scan", bias.scan)):
        # The smoothed and the unsmoothed mean of the same pixels have the same expectation.
        same = {made, chosen[key]} <= {"row", "smooth"}
        if made is not None and made != chosen[key] and not same:
            raise PrepareError(
                f"bias {bias.name or 'frame'} was made with {key} {made!r}, this frame asks for {chosen[key]!r}: "
                f"prepare with {key}: {made} or without the bias"
            )


def _scan_mask(calibration: Calibration, quadrant: str, detector: Detector) -> np.ndarray | None:
    """Bad pixels of the scans; the image area is left out because no offset looks there."""
    if not calibration.has_mask:
        return None
    view = quadrant_view(calibration.dq, quadrant, detector)
    mask = np.zeros(detector.quadrant_shape, bool)
    for scan in ("pre", "ove"):
        columns = detector.region(scan)[1]
        mask[:, columns] = (view[:, columns] & np.uint32(BADMASK)) != 0
    return mask


def _taken_off(offsets: Offsets) -> np.ndarray:
    """Offset that is subtracted from each canonical row, float32: the quadrant's level where a row has none."""
    fallback = offsets.level if math.isfinite(offsets.level) else 0.0
    return np.where(np.isfinite(offsets.offset), offsets.offset, fallback).astype(np.float32)


def _stored_rows(quadrant: str, detector: Detector, window: tuple[int, int]) -> tuple[int, int]:
    """Rows read of a quadrant in stored orientation, [start, stop)."""
    first, last = window
    return (detector.rows - last, detector.rows - first) if flips(quadrant)[0] else (first, last)


def _filled(out: np.ndarray, pixels: OnDemand, window: tuple[int, int]) -> np.ndarray:
    """`out` with the pixels of the rows read, and 0 in the others."""
    first, last = window
    out[:first] = 0.0
    out[last:] = 0.0
    pixels.window(slice(first, last), slice(None)).into(out[first:last])
    return out


def _lost_saturated(raw, quadrant, detector, window, level: float):
    """Canonical masks (lost, saturated) of a quadrant, None where there are none."""
    source = raw[detector.quadrant_slices(quadrant)]
    start, stop = _stored_rows(quadrant, detector, window)
    read = source[start:stop]
    lost = _where(np.equal, source, 0, start, stop) if read.size and read.min() == 0 else None
    saturated = (
        _where(np.greater_equal, source, level, start, stop) if read.size and read.max() >= level else None
    )
    return tuple(None if m is None else canonical(m, quadrant) for m in (lost, saturated))


def _where(compare, source: np.ndarray, level: float, start: int, stop: int) -> np.ndarray:
    """Where the comparison holds in the rows read."""
    mask = np.zeros(source.shape, bool)
    compare(source[start:stop], level, out=mask[start:stop])
    return mask


def _flag(flags, offsets: Offsets, window: tuple[int, int], grow: int, shape: tuple[int, int]):
    """(bits of this frame's own, canonical, or None; lost; saturated)."""
    lost, saturated = flags
    first, last = window
    unknown = ~np.isfinite(offsets.offset[first:last])
    counts = tuple(0 if mask is None else int(np.count_nonzero(mask)) for mask in flags)
    if lost is None and saturated is None and not unknown.any():
        return None, *counts
    bits = np.zeros(shape, np.uint32)
    if lost is not None:
        bits[lost] = DQ.LOST
    if saturated is not None:
        grown = grow_mask(saturated, grow)
        grown[:first] = False
        grown[last:] = False
        bits[grown] |= np.uint32(DQ.SATURATED)
    bits[first:last][unknown] |= np.uint32(DQ.NO_OFFSET)
    return bits, *counts


def _steps(chosen, calibration, offsets, saturation, grow, detector) -> list[str]:
    """What was done, one sentence each."""
    first, last = calibration.window
    level = dict(saturation) if isinstance(saturation, Mapping) else saturation or detector.full_scale
    steps = [f"rows {first}-{last - 1} read", f"saturated from {level} ADU, grown by {grow} px"]
    if calibration.has_mask:
        steps.append("bad pixels flagged from products")
    for quadrant in offsets:
        used = offsets[quadrant]
        if used.method == "none":
            text = "no offset subtracted"
        else:
            trim = detector.trims["ove" if used.scan == "ove" else "pre"]
            text = f"offset {used.method} of {used.scan}, trim {trim[0]},{trim[1]}"
            text += f", {used.window} rows" if used.method == "smooth" else ""
        if used.method != chosen["offset"] and used.test is not None:
            text += f" (smoothing refused: {used.test.reason})"
        if used.scan != chosen["scan"]:
            text += " (overscan has a trail)"
        steps.append(f"{quadrant}: {text}")
    for name, plane in (("bias subtracted", calibration.bias), ("image divided by flat", calibration.flat)):
        if plane is not None:
            steps.append(f"{name} {plane.name}".strip())
    return steps
