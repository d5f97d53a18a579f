"""Shared by the steps of flat-light families: usable image areas, linearity, pairs of frames, times."""

from __future__ import annotations

import math

from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import runner


def table(rows: list[dict], names: str) -> dict[str, list]:
    """Rows as columns, in the order of `names`."""
    return {name: [row.get(name) for row in rows] for name in names.split()}


def errs(names: str, unit: str) -> dict[str, str]:
    """Units of columns and of their errors."""
    return {out: unit for name in names.split() for out in (name, f"{name}_err")}


def seconds(exposure: runner.Exposure) -> float:
    """Start of an exposure, s, NaN without a date; differences only are meant (no wrap at midnight)."""
    from calcamp.data.names import clock_seconds

    return clock_seconds(exposure.values.get("date"))


def linearity(ctx: runner.Context, ccd: int | None = None) -> dict:
    """Correction of each quadrant of a CCD from the linearity product, {} without one."""
    product = ctx.product("linearity")
    if not product or not ctx.options.get("use_linearity", True):
        return {}
    from pathlib import Path

    from calcamp.analysis.nonlinearity import Correction
    from calcamp.data.fitsfile import read_fits_table

    ccd, path = ctx.ccd if ccd is None else ccd, Path(product["path"])
    if "linearity" not in ctx._cache:
        ctx._cache["linearity"] = read_fits_table(path, "LINEARITY")
    columns = ctx._cache["linearity"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found = {}
    for quadrant in QUADRANTS:
        own = [r for r in rows if int(r["ccd"]) == ccd and str(r["quadrant"]).strip() == quadrant]
        found[quadrant] = Correction.from_rows(own, *(_knots(path, ccd, quadrant) if own else ()))
    return found


def _knots(path, ccd: int, quadrant: str):
    """(knots, covariance of S at them) of a linearity product; nothing where it holds none."""
    from calcamp.data.files import InputError
    from calcamp.data.fitsfile import read_image

    try:
        covariance, header = read_image(path, f"COV_{ccd}{quadrant}")
    except InputError:
        return None, None
    knots = [float(header[f"KNOT{n:02d}"]) for n in range(len(covariance)) if f"KNOT{n:02d}" in header]
    return (knots, covariance) if len(knots) == len(covariance) else (None, None)


class Lit:
    """A prepared flat of one CCD: image area, bad and saturated pixels of a quadrant."""

    def __init__(self, exposure: runner.Exposure, prepared, corrections: dict, static: dict | None = None):
        self.exposure, self.prepared, self.corrections = exposure, prepared, corrections
        self.static = {} if static is None else static  # masks common to frames, by quadrant
        self._masks: dict = {}

    def image(self, quadrant: str):
        """Image area, contiguous, linear where a correction is known, ADU."""
        import numpy as np

        image = np.ascontiguousarray(self.prepared.image(quadrant))
        correction = self.corrections.get(quadrant)
        return image if correction is None else correction.apply(image)

    def linear_max(self, quadrant: str) -> float:
        """Signal up to which the correction is known, ADU; NaN without a correction."""
        correction = self.corrections.get(quadrant)
        return math.nan if correction is None else float(correction.signal[-1] - correction.value[-1])

    def masks(self, quadrant: str):
        """(bad, saturated) pixels of the image area; None where there are none."""
        if quadrant not in self._masks:
            # Frames with nothing of their own to flag share a plane: its mask is worked out once.
            known = self.static if self.prepared.shares_dq else {}
            if quadrant not in known:
                known[quadrant] = self._find(quadrant)
            self._masks[quadrant] = known[quadrant]
        return self._masks[quadrant]

    def _find(self, quadrant: str):
        import numpy as np

        from calcamp.detector.dq import DQ

        bad = np.ascontiguousarray(self.prepared.image_mask(quadrant))
        if not bad.any():
            return None, None
        if not self.prepared.saturated[quadrant]:
            return bad, None
        rows, columns = self.prepared.detector.region("img", trimmed=False)
        saturated = (self.prepared.dq[quadrant][rows, columns] & np.uint32(DQ.SATURATED)) != 0
        return bad, np.ascontiguousarray(saturated)


def stream(ctx: runner.Context, exposures=None, keep: int = 2):
    """Prepared flats one after another; one that cannot be read is left out and noted.

    A flat holds good until `keep` more have come: then its memory is used again.
    """
    from calcamp.data.raw import RawError

    corrections, static = linearity(ctx), {}
    exposures, made = ctx.readable() if exposures is None else exposures, 0
    for number, exposure in enumerate(exposures, 1):
        try:
            prepared = ctx.prepared(exposure, in_place=True, room=made % keep)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        made += 1
        yield Lit(exposure, prepared, corrections, static.setdefault(prepared.calibration.window, {}))
        if number % 10 == 0 or number == len(exposures):
            ctx.progress(number, len(exposures))
    ctx.current = None
