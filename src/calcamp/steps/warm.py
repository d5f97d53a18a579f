"""MOT_WARM: ramp, injection, flat light and spots of a warm CCD (basic)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import runner


def basic(ctx: runner.Context) -> None:
    """Everything that proves that one CCD is alive; frames are told by what was commanded."""
    from calcamp.analysis.warm import role

    frames: dict[str, list] = {}
    roles = []
    for exposure in ctx.exposures:
        what = role(exposure.values)
        frames.setdefault(what, []).append(exposure)
        roles.append(_role_row(ctx, exposure, what))
    ctx.write_table(
        "roles",
        _table(roles, "obsid column ccd role wavelength comments flag"),
        units={"wavelength": "nm"},
        descriptions={"role": "by read mode, injection, shutter and source; not by place in the test"},
    )
    raws = {what: _first(ctx, frames.get(what, [])) for what in ("RAMP", "CHINJ", "FLAT")}
    rows, profiles, bits, hers = [], [], [], []
    ramps = {}
    for quadrant in QUADRANTS:
        row, ramp = _quadrant(ctx, quadrant, raws, profiles, bits, hers)
        rows.append(row)
        ramps[quadrant] = ramp
    spots = _spots(ctx, frames.get("PNT", []), raws["RAMP"])
    ctx.current = None
    _write(ctx, rows, profiles, bits, hers, spots)


def _wavelength(ctx: runner.Context, exposure) -> int:
    wheel = ctx.job.get("chamber_data", {}).get("filter_wheel", {})
    return int(wheel.get(str(exposure.values.get("wave")), 0) or 0)


def _role_row(ctx, exposure, what: str) -> dict:
    comment = str(exposure.values.get("comments") or "").strip()  # not in the logs of ELVIS 7.5
    expected = {"RWDVS": "BIAS_RVS", "RWDV": "BIAS_RV"}.get(comment, comment)
    known = expected in ("BIAS_RVS", "BIAS_RV", "RAMP", "CHINJ", "FLAT", "PNT")
    flag = ""
    if not what:
        flag = "none of the frames of this test"
    elif known and expected != what:
        flag = f"the log calls it {comment}"
    if flag:
        ctx.flag(
            "WRONGTEST" if not what else "MISSDATA", f"OBSID {exposure.obsid}: {flag}", obsid=exposure.obsid
        )
    return {
        "obsid": exposure.obsid,
        "column": exposure.column,
        "ccd": ctx.ccd,
        "role": what,
        "wavelength": _wavelength(ctx, exposure) if what in ("FLAT", "PNT") else 0,
        "comments": comment,
        "flag": flag,
    }


def _first(ctx: runner.Context, exposures: list):
    """(exposure, raw frame) of the first of `exposures` that can be read and was not left out; None without."""
    from calcamp.data.raw import RawError

    for exposure in exposures:
        if all((exposure.obsid, q) in ctx.selection() for q in QUADRANTS):
            continue
        try:
            return exposure, ctx.read(exposure).data
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
    return None


def _bad(ctx: runner.Context, quadrant: str):
    """Static bad pixels of the masks named, or None."""
    import numpy as np

    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import BADMASK

    plane = ctx.dq_plane()
    if plane is None:
        return None
    return (quadrant_view(plane, quadrant, ctx.detector) & np.uint32(BADMASK)) != 0


_GO = (
    "ramp_slope ramp_slope_err ramp_start ramp_start_err injection_level injection_err injection_significance "
    "injection_wanted flat_level flat_level_err bits_stuck n flag"
)


def _quadrant(ctx, quadrant, raws, profiles, bits, hers):
    from calcamp.analysis.warm import fit_ramp, flat_level, injected_lines, row_levels
    from calcamp.detector.arrays import quadrant_view

    nan = math.nan
    row = dict.fromkeys(_GO.split(), nan) | {"bits_stuck": "", "injection_wanted": False, "n": 0, "flag": ""}
    row |= {"ccd": ctx.ccd, "quadrant": quadrant}
    bad = _bad(ctx, quadrant)
    flags, levels, ramp = [], {}, None
    for what, found in raws.items():
        if found is None or (found[0].obsid, quadrant) in ctx.selection():
            flags.append(f"no {what} frame")
            continue
        levels[what] = row_levels(quadrant_view(found[1], quadrant, ctx.detector), ctx.detector, bad)
        _add_profile(ctx, quadrant, what, levels[what], profiles)
    if "RAMP" in levels:
        ramp = fit_ramp(levels["RAMP"])
        row |= {
            "ramp_slope": ramp.slope,
            "ramp_slope_err": ramp.slope_err,
            "ramp_start": ramp.start,
            "ramp_start_err": ramp.start_err,
            "n": ramp.n,
        }
        flags += [ramp.reason] if ramp.reason else []
        view = quadrant_view(raws["RAMP"][1], quadrant, ctx.detector)
        row["bits_stuck"] = _bits(ctx, quadrant, view, bits)
        hers.append(_her(ctx, quadrant, view, bad))
    if "CHINJ" in levels:
        keys = raws["CHINJ"][0].values
        wanted = _injected_half(keys, quadrant)
        found = injected_lines(
            levels["CHINJ"], int(keys.get("chinj_on") or 0), int(keys.get("chinj_of") or 0)
        )
        row |= {"injection_level": found.level, "injection_err": found.err, "injection_wanted": wanted}
        # Judged where it is expected: the other half sees a remainder at most.
        row["injection_significance"] = found.significance if wanted else nan
        flags += [found.reason] if found.reason else []
    if "FLAT" in levels:
        row["flat_level"], row["flat_level_err"] = flat_level(levels["FLAT"], ramp)
    return row | {"flag": "; ".join(flags)}, ramp


def _injected_half(keys: dict, quadrant: str) -> bool:
    """Whether the half of `quadrant` takes charge: its window holds id_dly / toi_ch (analysis page, 2.1)."""
    from calcamp.detector.geometry import half_of

    clock = float(keys.get("toi_ch") or 0)
    ratio = float(keys.get("id_dly") or 0) / clock if clock else math.nan
    low, high = {"half_EF": (2.0, 3.0), "half_GH": (1.0, 2.0)}[half_of(quadrant)]
    return low <= ratio <= high


def _add_profile(ctx, quadrant, what, levels, profiles) -> None:
    """Profile in groups of rows that a page can show."""
    import numpy as np

    n = levels.level.size
    step = 1 if what == "CHINJ" else max(1, n // 256)
    stop = n // step * step
    value = levels.level[:stop].reshape(-1, step).mean(axis=1)
    err = np.sqrt(np.square(levels.err[:stop]).reshape(-1, step).sum(axis=1)) / step
    for k in range(value.size):
        profiles.append((ctx.ccd, quadrant, what, k * step + (step - 1) / 2, float(value[k]), float(err[k])))


def _bits(ctx, quadrant, view, bits) -> str:
    import numpy as np

    from calcamp.analysis.check import stuck_bits
    from calcamp.analysis.statistics import histogram

    tested, stuck, rates = stuck_bits(histogram(np.ascontiguousarray(view)))
    for bit, rate in enumerate(rates):
        bits.append((ctx.ccd, quadrant, bit, rate, bit in tested, "stuck" if bit in stuck else ""))
    return " ".join(map(str, stuck))


def _her(ctx, quadrant, view, bad) -> dict:
    """Hard-edge response in the serial overscan of the ramp."""
    import numpy as np

    from calcamp.analysis.her import edge_profile, fit_response

    data = view.astype(np.float32)
    data -= data[:, ctx.detector.region("pre")[1]].mean(axis=1, keepdims=True)
    rows = ctx.detector.region("img")[0]
    level = data[rows, ctx.detector.region("img")[1]].mean(axis=1)
    # Between 1000 and 40000 ADU, as the predecessor; rows beyond would saturate or say nothing.
    out = (level < 1e3) | (level > 4e4)
    mask = np.zeros(data.shape, bool) if bad is None else bad.copy()
    mask[rows][out] = True
    edge = edge_profile(data, ctx.detector, "serial", mask)
    row = {"ccd": ctx.ccd, "quadrant": quadrant, "edge": "serial"}
    if edge is None or not edge.signal > 0:
        return row | {
            "her": math.nan,
            "her_err": math.nan,
            "signal": math.nan,
            "n": 0,
            "flag": "no rows between 1000 and 40000 ADU",
        }
    made = fit_response(np.array([edge.signal]), edge.response[None, :], edge.err[None, :])
    return row | {
        "her": made.her,
        "her_err": made.her_err,
        "signal": edge.signal,
        "n": edge.n,
        "flag": made.flag,
    }


def _spots(ctx: runner.Context, exposures: list, ramp) -> tuple[list, list]:
    """(number of spots per frame and quadrant, the spots) of the frames of the point source."""
    import numpy as np

    from calcamp.analysis.warm import find_spots
    from calcamp.data.raw import RawError
    from calcamp.detector.arrays import quadrant_view

    image = ctx.detector.region("img", trimmed=False)
    counts, spots = [], []
    for number, exposure in enumerate(exposures, 1):
        try:
            raw = ctx.read(exposure).data
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        for quadrant in QUADRANTS:
            if (exposure.obsid, quadrant) in ctx.selection():
                continue
            area = quadrant_view(raw, quadrant, ctx.detector)[image].astype(np.float32)
            dark = None
            if ramp is not None:
                dark = quadrant_view(ramp[1], quadrant, ctx.detector)[image].astype(np.float32)
            found = find_spots(area, dark)
            key = {
                "obsid": exposure.obsid,
                "column": exposure.column,
                "ccd": ctx.ccd,
                "quadrant": quadrant,
                "wavelength": _wavelength(ctx, exposure),
            }
            flux = float(np.median(found.flux)) if len(found) else math.nan
            counts.append({**key, "found": len(found), "flux": flux, "n": 5, "flag": ""})
            for k in range(len(found)):
                spots.append(
                    {
                        **key,
                        "x": float(found.x[k]),
                        "y": float(found.y[k]),
                        "flux": float(found.flux[k]),
                        "width": float(found.width[k]),
                    }
                )
        ctx.progress(number, len(exposures))
    return counts, spots


def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


def _columns(rows: list[tuple], names: str) -> dict[str, list]:
    columns = [list(c) for c in zip(*rows, strict=True)] if rows else [[] for _ in names.split()]
    return dict(zip(names.split(), columns, strict=True))


def _write(ctx: runner.Context, rows, profiles, bits, hers, spots) -> None:
    ctx.write_table(
        "go",
        _table(rows, f"ccd quadrant {_GO}"),
        units={
            **dict.fromkeys(("ramp_slope", "ramp_slope_err"), "ADU/row"),
            **dict.fromkeys(("ramp_start", "ramp_start_err", "injection_level", "injection_err"), "ADU"),
            **dict.fromkeys(("flat_level", "flat_level_err"), "ADU"),
        },
        descriptions={
            "ramp_slope": "robust line through the row levels of the frame RAMP",
            "injection_significance": "lines with over lines without injection; NaN in the half that is not commanded",
            "flat_level": "above the ramp",
            "n": "rows of the ramp used",
        },
    )
    ctx.write_table(
        "warm_profiles",
        _columns(profiles, "ccd quadrant kind row value value_err"),
        units={"row": "px", "value": "ADU", "value_err": "ADU"},
        descriptions={"value": "mean of the row above the prescan, groups of rows"},
    )
    ctx.write_table(
        "bits",
        _columns(bits, "ccd quadrant bit rate tested flag"),
        descriptions={"rate": "share of the pixels of RAMP with the bit set"},
    )
    ctx.write_table(
        "her", _table(hers, "ccd quadrant edge her her_err signal n flag"), units={"signal": "ADU"}
    )
    counts, found = spots
    ctx.write_table(
        "spots",
        _table(counts, "obsid column ccd quadrant wavelength found flux n flag"),
        units={"wavelength": "nm", "flux": "ADU"},
        descriptions={"found": "sources like a spot, at most five", "flux": "median of the spots"},
    )
    ctx.write_table(
        "spot_list",
        _table(found, "obsid column ccd quadrant wavelength x y flux width"),
        units={"wavelength": "nm", "x": "px", "y": "px", "flux": "ADU", "width": "px"},
        descriptions={"x": "column of the image area, canonical", "width": "sigma"},
    )


if __name__ == "__main__":
    sys.exit(runner.run("warm", {"basic": basic}))
