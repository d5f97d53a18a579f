"""Checks of raw data: house-keeping of the block (hk), image statistics per CCD (check)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import runner

REGIONS = ("pre", "img", "ove", "pov")


def hk(ctx: runner.Context) -> None:
    """Table ``hk``: house-keeping over each exposure, one row per OBSID and key."""
    from calcamp.data.files import InputError
    from calcamp.data.hk import NOT_MEASURED, read_hk

    commanded = ctx.job["commanded"]
    names = ("obsid", "column", "frame", "time", "key", "commanded", "mean", "std", "min", "max", "n", "flag")
    rows: dict[str, list] = {name: [] for name in names}
    for exposure in ctx.exposures:
        ctx.current = exposure.obsid
        summaries, unreadable = {}, ""
        if exposure.hk:
            try:
                summaries = read_hk(exposure.folder / exposure.hk).summary(commanded)
            except InputError as error:  # one damaged file must not cost the readings of the others
                unreadable = "unreadable"
                ctx.flag("BADDATA", str(error), obsid=exposure.obsid)
        for key, partner in commanded.items():
            s = summaries.get(key, NOT_MEASURED)
            value = exposure.values.get(partner) if partner else None
            number = float(value) if isinstance(value, int | float) else math.nan
            flag = "" if s.n else unreadable or ("no reading" if exposure.hk else "no file")
            row = (
                exposure.obsid,
                exposure.column,
                exposure.frame,
                str(exposure.values["date"]),
                key,
                number,
                *s,
                flag,
            )
            for name, item in zip(names, row, strict=True):
                rows[name].append(item)
    ctx.write_table(
        "hk", rows, descriptions={"commanded": "value of the EXP-LOG, NaN where the key has none"}
    )


def check(ctx: runner.Context) -> None:
    """Tables ``frames``, ``offsets`` and ``selection`` of one CCD, from the raw frames."""
    from calcamp.analysis.check import find_bad

    plane = ctx.dq_plane()
    bad = None if plane is None else find_bad(plane, ctx.detector)
    measured, unreadable = _measure(ctx, bad)
    _write_offsets(ctx, measured)
    _write_frames(ctx, measured)
    _write_selection(ctx, measured, unreadable)


def _measure(ctx: runner.Context, bad) -> tuple[dict, dict]:
    """(obsid -> quadrant -> statistics, obsid -> why the frame cannot be read)."""
    from calcamp.analysis.check import frame_statistics
    from calcamp.data.raw import RawError

    measured, unreadable = {}, {}
    for number, exposure in enumerate(ctx.exposures, 1):
        vstart = int(exposure.values.get("vstart") or 0)
        vend = int(exposure.values.get("vend") or ctx.detector.commanded_rows)
        try:
            raw = ctx.read(exposure)
        except RawError as error:
            unreadable[exposure.obsid] = f"{error.kind}: {error}"
            ctx.flag("MISSDATA" if error.kind == "missing" else "BADDATA", str(error), obsid=exposure.obsid)
            continue
        measured[exposure.obsid] = frame_statistics(
            raw.data, ctx.detector, vstart, vend, dq=bad, slopes=("img",)
        )
        _compare_serials(ctx, exposure)
        ctx.progress(number, len(ctx.exposures))
    return measured, unreadable


def _compare_serials(ctx: runner.Context, exposure: runner.Exposure) -> None:
    """Another serial than the block YAML's in the log raises MISSDATA and stops nothing."""
    found = str(exposure.values.get(f"sn_ccd{ctx.ccd}") or "")
    if found and "XX" not in ctx.serial and found != ctx.serial and "serial" not in ctx.notes:
        ctx.notes["serial"] = found
        ctx.flag(
            "MISSDATA",
            f"CCD{ctx.ccd} is {found} in the EXP-LOG, {ctx.serial} in the block file",
            obsid=exposure.obsid,
        )


def _keys(ctx: runner.Context, exposure: runner.Exposure) -> dict:
    return {"obsid": exposure.obsid, "column": exposure.column, "frame": exposure.frame, "ccd": ctx.ccd}


def _table(rows: list[dict], names) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names}


def _write_offsets(ctx: runner.Context, measured: dict) -> None:
    """Table ``offsets``: level and noise of every region of every frame."""
    rows = []
    for exposure in ctx.exposures:
        for quadrant, stats in measured.get(exposure.obsid, {}).items():
            for region in REGIONS:
                r = stats.regions[region]
                c = r.clipped
                rows.append(
                    {
                        **_keys(ctx, exposure),
                        "quadrant": quadrant,
                        "region": region,
                        "offset": c.mean,
                        "offset_err": c.mean_err,
                        "offset_vison": r.median,
                        "delta": math.nan,
                        "noise": c.std,
                        "noise_err": c.std_err,
                        "noise_vison": r.plain_std,
                        "n": r.n,
                        "clipped": c.n_clipped / r.n if r.n else math.nan,
                        "flag": "" if r.n else "no pixels",
                    }
                )
    _add_deltas(rows)
    names = "obsid column frame ccd quadrant region offset offset_err offset_vison delta noise noise_err noise_vison n clipped flag"
    adu = dict.fromkeys(
        ("offset", "offset_err", "offset_vison", "delta", "noise", "noise_err", "noise_vison"), "adu"
    )
    ctx.write_table(
        "offsets",
        _table(rows, names.split()),
        units=adu,
        descriptions={
            "offset": "clipped mean",
            "offset_vison": "median, as the predecessor measured it",
            "delta": "offset minus the median over frames of the same column",
            "noise": "clipped standard deviation, rounding removed",
            "noise_vison": "plain standard deviation, as the predecessor measured it",
            "clipped": "share of pixels clipped",
        },
    )


def _add_deltas(rows: list[dict]) -> None:
    """Offset minus the median over the frames of the same column, quadrant and region."""
    import statistics

    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["column"], row["quadrant"], row["region"]), []).append(row)
    for group in groups.values():
        known = [row["offset"] for row in group if not math.isnan(row["offset"])]
        if known:
            middle = statistics.median(known)
            for row in group:
                row["delta"] = row["offset"] - middle


def _write_frames(ctx: runner.Context, measured: dict) -> None:
    """Table ``frames``: lost and saturated pixels, image level, slopes, stuck bits of every frame."""
    rows = []
    for exposure in ctx.exposures:
        for quadrant, s in measured.get(exposure.obsid, {}).items():
            slope = s.slopes["img"]
            rows.append(
                {
                    **_keys(ctx, exposure),
                    "quadrant": quadrant,
                    "lost": s.lost,
                    "saturated": s.saturated,
                    "saturated_fraction": s.saturated_fraction,
                    "level_image": s.level,
                    "level_image_err": s.level_err,
                    "row_slope": slope.row,
                    "row_slope_err": slope.row_err,
                    "column_slope": slope.column,
                    "column_slope_err": slope.column_err,
                    "bits_stuck": " ".join(map(str, s.bits_stuck)),
                    "n": s.n,
                    "flag": "" if s.n else "no pixels",
                }
            )
            if s.bits_stuck:
                bits = ", ".join(map(str, s.bits_stuck))
                ctx.flag(
                    "UNDERPERFORM", f"ADC bit {bits} does not toggle", quadrant=quadrant, obsid=exposure.obsid
                )
    names = "obsid column frame ccd quadrant lost saturated saturated_fraction level_image level_image_err"
    slopes = "row_slope row_slope_err column_slope column_slope_err"
    ctx.write_table(
        "frames",
        _table(rows, [*names.split(), *slopes.split(), "bits_stuck", "n", "flag"]),
        units={"level_image": "adu", "level_image_err": "adu", "lost": "pix", "saturated": "pix", "n": "pix"},
        descriptions={
            "level_image": "clipped mean of the image area above the prescan's",
            "row_slope": "of the image area, ADU per 1000 px along increasing row",
            "column_slope": "of the image area, ADU per 1000 px along increasing column",
        },
    )


def _choose(ctx: runner.Context, measured: dict, unreadable: dict[int, str]) -> dict[tuple, tuple[str, str]]:
    """(obsid, quadrant) -> (by rule or analyst, cause) of what is left out."""
    from calcamp.analysis.selection import FrameQuality, select

    frames = []
    for exposure in ctx.exposures:
        for quadrant in QUADRANTS:
            item = {"obsid": exposure.obsid, "ccd": ctx.ccd, "quadrant": quadrant, "column": exposure.column}
            item["read_mode"] = str(exposure.values.get("rdmode", ""))
            if exposure.obsid in measured:
                s = measured[exposure.obsid][quadrant]
                pre = s.regions["pre"].clipped
                item |= {"offset": pre.mean, "noise": pre.std, "noise_err": pre.std_err, "level": s.level}
                item |= {"lost_fraction": s.lost_fraction}
            else:
                item["truncated"] = True
            frames.append(FrameQuality(**item))
    choice = {}
    for found in select(frames):
        if not found.use:
            choice[found.obsid, found.quadrant] = ("rule", unreadable.get(found.obsid, found.cause))
    for item in ctx.job.get("exclude", []):
        for quadrant in (item["quadrant"],) if item["quadrant"] else QUADRANTS:
            choice[item["obsid"], quadrant] = ("analyst", item["cause"])
    return choice


def _write_selection(ctx: runner.Context, measured: dict, unreadable: dict[int, str]) -> None:
    """Table ``selection``: which quadrants of which frames may be measured, and why others not."""
    choice = _choose(ctx, measured, unreadable)
    rows = []
    for exposure in ctx.exposures:
        for quadrant in QUADRANTS:
            by, cause = choice.get((exposure.obsid, quadrant), ("", ""))
            rows.append(
                {
                    "obsid": exposure.obsid,
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "use": not cause,
                    "by": by,
                    "cause": cause,
                }
            )
            if cause:
                ctx.exclude(exposure.obsid, cause, quadrant, by)
    ctx.write_table("selection", _table(rows, ("obsid", "ccd", "quadrant", "use", "by", "cause")))


if __name__ == "__main__":
    sys.exit(runner.run("check", {"check": check, "hk": hk}))
