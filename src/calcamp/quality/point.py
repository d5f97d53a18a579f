"""Judging FOCUS00, PSFLUX00, PSF01 and PSF02: lock, spots, focus, brightness, growth with fluence, cross-talk."""

from __future__ import annotations

import math

from calcamp.detector.geometry import CCDS
from calcamp.quality.family import Case, Check, FamilyRules, channels, entry, from_table, mean_of
from calcamp.quality.limits import Limit, number

_SIGMA_PER_FWHM = 1.0 / math.sqrt(8.0 * math.log(2.0))


# ---- what limits are relative to -----------------------------------------------------------------------
def expected(case: Case, key: str) -> float | None:
    """A figure of the chamber profile: saturation_time [s], fwhm [px], mirror [mm]."""
    return number((case.judging.get("chamber_data") or {}).get(key))


def central_share(fwhm: float) -> float:
    """Share of a Gaussian spot's light in the pixel that it is centred on."""
    return math.erf(0.5 / (fwhm * _SIGMA_PER_FWHM * math.sqrt(2.0))) ** 2


def spot_fluence(case: Case, row, limit: Limit) -> float | None:
    """Fluence of a spot whose centred peak saturates, ADU."""
    fwhm = expected(case, "fwhm")
    return None if not fwhm else limit.parameters["effective_saturation"] / central_share(fwhm)


def spot_peak(case: Case, row, limit: Limit) -> float | None:
    """Expected peak of an exposure as commanded, ADU."""
    full = expected(case, "saturation_time")
    time = number((case.logged.get(row.get("obsid")) or {}).get("exptime"))
    if not full or time is None:
        return None
    return min(time / full, 1.0) * limit.parameters["effective_saturation"]


def saturation_time(case: Case, row, limit: Limit) -> float | None:
    """The chamber's, s."""
    return expected(case, "saturation_time")


# ---- rows to be judged ---------------------------------------------------------------------------------
def background_rows(case: Case, limit: Limit) -> list[dict]:
    """Level of the image area above the prescan, spots clipped away: what the check measured on raw frames."""
    return [{**row, limit.value: row.get("level_image")} for row in case.rows("frames")]


def peak_rows(case: Case, limit: Limit) -> list[dict]:
    """Peaks as they would be with the spot centred on a pixel: where it falls on the pixels changes 25 %.

    Saturated spots keep the peak that was read.
    """
    return [
        {**row, limit.value: row.get("peak") if row.get("saturated") else row.get("peak_centred")}
        for row in case.rows(limit.table)
    ]


# ---- headline ------------------------------------------------------------------------------------------
def headline(case: Case) -> list[dict]:
    """Lock, focus, widths, brightness, growth, kernel and cross-talk: what the test measures of these."""
    wavelength = case.judging.get("wavelength")
    out = _lock(case)
    if "focus" in case.tables:
        out = _focus(case, wavelength) + out
    if "point_flux" in case.tables:
        out += _brightness(case, wavelength)
    if "psf" in case.tables:
        out += _psf(case, wavelength)
    if "crosstalk" in case.tables:
        out += _crosstalk(case)
    return out


def _focus(case: Case, wavelength) -> list[dict]:
    by_ccd = {row.get("ccd"): row for row in case.rows("focus")}
    block = (case.rows("focus_block") or [{}])[0]
    out = []
    for quantity in ("best_focus", "fwhm_best", "fwhm_best_vison"):
        n = block.get("ccds") if quantity == "best_focus" else block.get("spots")
        out.append(
            entry(quantity, block.get(quantity), block.get(f"{quantity}_err"), n, wavelength=wavelength)
        )
        for ccd in CCDS:
            row = by_ccd.get(ccd, {})
            out.append(
                entry(
                    quantity,
                    row.get(quantity),
                    row.get(f"{quantity}_err"),
                    row.get("n"),
                    ccd=ccd,
                    wavelength=wavelength,
                )
            )
    return out


def _lock(case: Case) -> list[dict]:
    by_ccd = {row.get("ccd"): row for row in case.rows("lock")}
    out = []
    for column in ("scale", "rotation", "shift_x", "shift_y"):
        quantity = f"lock_{column}"
        for ccd in CCDS:
            row = by_ccd.get(ccd, {})
            out.append(
                entry(quantity, row.get(column), row.get(f"{column}_err"), row.get("matched"), ccd=ccd)
            )
    return out


def _brightness(case: Case, wavelength) -> list[dict]:
    """Saturation time: of the block first (what the chamber profile takes), then of the channels."""
    rows = case.rows("point_flux")
    keys = {"wavelength": wavelength, "source": "point"}
    values = [row.get("saturation_time") for row in rows]
    value, _, n = mean_of(values)
    errors = [
        number(r.get("saturation_time_err")) for r in rows if number(r.get("saturation_time")) is not None
    ]
    err = math.sqrt(sum(e * e for e in errors)) / n if n and None not in errors else None
    return [
        entry("saturation_time", value, err, n, **keys),
        *from_table([{**row, **keys} for row in rows], "saturation_time", "saturation_time", **keys),
    ]


def _psf(case: Case, wavelength) -> list[dict]:
    out = []
    rows = case.rows("psf")
    columns = sorted({row.get("column") for row in rows if row.get("column") is not None})
    # Shape is told at the middle level only; all levels are in table psf.
    middle = columns[len(columns) // 2 : len(columns) // 2 + 1]
    for quantity, name, told in (
        ("fwhm", "fwhm", columns),
        ("ellipticity_e1", "e1", middle),
        ("ellipticity_e2", "e2", middle),
    ):
        for column in told:
            out += from_table(rows, quantity, name, column=column)
    growth = [_per_electron(case, row) for row in case.rows("growth")]
    for kind in sorted({row.get("kind") for row in growth}):
        out += from_table(growth, "bf_fwhm_slope", "slope", kind=kind)
    by_ccd = {row.get("ccd"): row for row in case.rows("psf_kernel")}
    for ccd in CCDS:
        row = by_ccd.get(ccd, {})
        item = entry(
            "psf_kernel",
            row.get("kernel"),
            row.get("kernel_err"),
            row.get("n"),
            ccd=ccd,
            wavelength=wavelength,
        )
        out.append({**item, "is_limit": bool(row.get("is_limit"))})
    return out


def _per_electron(case: Case, row: dict) -> dict:
    """Growth per 10 000 e- from that per 10 000 ADU, with the block's gain."""
    gain, gain_err, _ = case.gain(row["ccd"], row["quadrant"])
    slope, err = number(row.get("slope")), number(row.get("slope_err"))
    if not gain or slope is None:
        return {**row, "slope": None, "slope_err": None}
    total = None if err is None else math.hypot(err, slope * (gain_err or 0.0) / gain) / gain
    return {**row, "slope": slope / gain, "slope_err": total}


def _crosstalk(case: Case) -> list[dict]:
    """Largest coefficient of each victim."""
    victims: dict[tuple, list[dict]] = {}
    for row in case.rows("crosstalk"):
        if number(row.get("coefficient")) is not None:
            victims.setdefault((row["ccd"], row["quadrant"]), []).append(row)
    out = []
    for ccd, quadrant in channels():
        row = max(victims.get((ccd, quadrant), [{}]), key=lambda r: abs(r.get("coefficient") or 0.0))
        out.append(
            entry(
                "crosstalk_max",
                row.get("coefficient"),
                row.get("coefficient_err"),
                row.get("n"),
                ccd=ccd,
                quadrant=quadrant,
            )
        )
    return out


FAMILY = FamilyRules(
    "point",
    checks=(
        Check("background", rows=background_rows),
        Check("peak", rows=peak_rows),
    ),
    headline=headline,
    references={
        "spot_fluence": spot_fluence,
        "spot_peak": spot_peak,
        "point_saturation_time": saturation_time,
    },
)
