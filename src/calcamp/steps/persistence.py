"""PERSIST01: charge released after saturation, frame by frame (basic), its amplitude and decay (meta)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import runner


def _roles(ctx: runner.Context) -> dict[str, list]:
    """Exposures by what they are: RESET, REFERENCE, EXPOSE, LATENT; by time and source, not by place."""
    exposed = [
        e
        for e in ctx.exposures
        if _number(e.values.get("exptime")) > 0
        and str(e.values.get("source") or "").strip().lower() == "point"
    ]
    light = exposed[-1] if exposed else None
    out: dict[str, list] = {"RESET": [], "REFERENCE": [], "EXPOSE": exposed, "LATENT": []}
    for exposure in ctx.exposures:
        if exposure in exposed:
            continue
        if _number(exposure.values.get("exptime")) == 0:
            out["RESET"].append(exposure)
        elif light is not None and exposure.obsid > light.obsid:
            out["LATENT"].append(exposure)
        else:
            out["REFERENCE"].append(exposure)
    return out


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def basic(ctx: runner.Context) -> None:
    """Saturated areas, and the signal in them above their surroundings in each frame less the reference."""
    import numpy as np

    roles = _roles(ctx)
    if not roles["EXPOSE"]:
        ctx.flag("MISSDATA", "no saturating exposure: nothing can persist")
    areas = _areas(ctx, roles["EXPOSE"])
    prepared = {
        role: [(e, p) for e in roles[role] if (p := _prepare(ctx, e)) is not None]
        for role in ("REFERENCE", "LATENT")
    }
    ctx.current = None
    rows, backgrounds, latent = [], [], {}
    for quadrant in QUADRANTS:
        used = {
            role: [(e, p) for e, p in frames if (e.obsid, quadrant) not in ctx.selection()]
            for role, frames in prepared.items()
        }
        image = [p.image(quadrant) for _, p in used["REFERENCE"]]
        reference = np.mean(image, axis=0, dtype=np.float32) if image else None
        if reference is None and used["LATENT"]:
            ctx.flag(
                "BADDATAPROD",
                "no reference dark: the pixels' own dark signal is not taken off",
                quadrant=quadrant,
            )
        area = areas.get(quadrant)
        for role, frames in used.items():
            for k, (exposure, made) in enumerate(frames):
                backgrounds.append(_background(ctx, exposure, made, quadrant, area))
                own = _reference_of(role, k, image, reference)
                if area is None or own is None:
                    continue
                difference = made.image(quadrant) - own
                rows.append(
                    _frame_row(ctx, roles, exposure, role, quadrant, difference, area, made, len(image))
                )
                if role == "LATENT" and quadrant not in latent:
                    latent[quadrant] = difference
    _write_basic(ctx, areas, rows, backgrounds)
    _write_products(ctx, areas, latent)


def _areas(ctx: runner.Context, exposed: list) -> dict:
    """Classes of pixels by quadrant, from the saturating exposures together."""
    import numpy as np

    from calcamp.analysis.persistence import classify
    from calcamp.data.raw import RawError
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import BADMASK

    highest = None
    for exposure in exposed:
        try:
            raw = ctx.read(exposure).data
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        highest = raw if highest is None else np.maximum(highest, raw)
    if highest is None:
        return {}
    plane = ctx.dq_plane()
    image = ctx.detector.region("img", trimmed=False)
    out = {}
    options = {k: ctx.options[k] for k in ("bright", "halo", "inner", "reach") if k in ctx.options}
    for quadrant in QUADRANTS:
        bad = None
        if plane is not None:
            bad = (quadrant_view(plane, quadrant, ctx.detector)[image] & np.uint32(BADMASK)) != 0
        area = quadrant_view(highest, quadrant, ctx.detector)[image]
        out[quadrant] = classify(area, ctx.detector.full_scale, bad, **options)
    return out


def _prepare(ctx: runner.Context, exposure):
    from calcamp.data.raw import RawError

    if all((exposure.obsid, q) in ctx.selection() for q in QUADRANTS):
        return None
    try:
        return ctx.prepared(exposure)
    except RawError as error:
        ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
        return None


def _reference_of(role: str, k: int, image: list, reference):
    """The reference of a frame: all reference darks, or for one of them the others."""
    import numpy as np

    if role != "REFERENCE":
        return reference
    others = [area for n, area in enumerate(image) if n != k]
    return np.mean(others, axis=0, dtype=np.float32) if others else None


def _keys(ctx, exposure, quadrant: str) -> dict:
    return {
        "obsid": exposure.obsid,
        "column": exposure.column,
        "frame": exposure.frame,
        "ccd": ctx.ccd,
        "quadrant": quadrant,
    }


def _background(ctx, exposure, made, quadrant, area) -> dict:
    """Level of the image area outside of what saturated; limit BGD of the predecessor."""
    from calcamp.analysis.persistence import background
    from calcamp.detector.dq import BADMASK

    bad = made.image_mask(quadrant, BADMASK)
    outside = ~bad if area is None else ~(bad | area.saturated | area.bright)
    level, err, n = background(made.image(quadrant), outside)
    return {**_keys(ctx, exposure, quadrant), "background": level, "background_err": err, "n": n, "flag": ""}


def _frame_row(ctx, roles, exposure, role, quadrant, difference, area, made, references) -> dict:
    from calcamp.analysis.persistence import measure
    from calcamp.detector.dq import DQ

    # What is lost or saturated in this frame itself has no value; the mask's bad pixels are left out already.
    invalid = made.image_mask(quadrant, int(DQ.SATURATED | DQ.LOST | DQ.NO_OFFSET))
    found = measure(difference, area.saturated & ~invalid, area.around & ~invalid)
    gain = ctx.gains()[quadrant][0]
    whole = float(made.image(quadrant)[area.saturated].mean()) if area.saturated.any() else math.nan
    p25, p50, p75 = found.percentiles
    return {
        **_keys(ctx, exposure, quadrant),
        "kind": role,
        "t_start": _since_light(roles, exposure),
        "exptime": _number(exposure.values.get("exptime")),
        "signal_adu": found.signal,
        "signal_adu_err": found.err,
        "signal_e": found.signal * gain,
        "signal_e_err": found.err * gain,
        "p25": p25,
        "p50": p50,
        "p75": p75,
        "mean_vison": whole,
        "background": found.background,
        "references": references,
        "n": found.n,
        "n_background": found.n_background,
        "flag": "" if found.n else "too few pixels",
    }


def _since_light(roles: dict, exposure) -> float:
    """Seconds from the end of the light to the start of an exposure; negative before it."""
    from calcamp.data.names import parse_stamp

    if not roles["EXPOSE"]:
        return math.nan
    light = roles["EXPOSE"][-1]
    try:
        start, lit = (parse_stamp(str(e.values["date"])) for e in (exposure, light))
    except (KeyError, ValueError):
        return math.nan
    return (start - lit).total_seconds() - _number(light.values.get("exptime"))


def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


def _write_basic(ctx: runner.Context, areas: dict, rows: list, backgrounds: list) -> None:
    size = ctx.detector.image_rows * ctx.detector.image_columns
    names = "ccd quadrant saturated saturated_share bright islands surroundings n flag"
    table = [
        {
            "ccd": ctx.ccd,
            "quadrant": q,
            "saturated": int(a.saturated.sum()),
            "saturated_share": 100 * float(a.saturated.mean()),
            "bright": int(a.bright.sum()),
            "islands": a.islands,
            "surroundings": int(a.around.sum()),
            "n": size,
            "flag": "" if a.saturated.any() else "nothing saturated",
        }
        for q, a in areas.items()
    ]
    ctx.write_table(
        "saturated_areas",
        _table(table, names),
        units={**dict.fromkeys(("saturated", "bright", "surroundings", "n"), "px"), "saturated_share": "%"},
        descriptions={
            "saturated": "pixels at full scale in the saturating exposure, bad ones left out",
            "bright": "above the bright level, not saturated: in no class",
            "surroundings": "pixels that give the background",
        },
    )
    values = "signal_adu signal_adu_err signal_e signal_e_err p25 p50 p75 mean_vison background references n n_background flag"
    adu = ("signal_adu", "signal_adu_err", "p25", "p50", "p75", "mean_vison", "background")
    ctx.write_table(
        "persistence_frames",
        _table(rows, f"obsid column frame ccd quadrant kind t_start exptime {values}"),
        units={
            **dict.fromkeys(adu, "ADU"),
            **dict.fromkeys(("signal_e", "signal_e_err"), "e-/px"),
            **dict.fromkeys(("t_start", "exptime"), "s"),
            **dict.fromkeys(("n", "n_background"), "px"),
        },
        descriptions={
            "kind": "REFERENCE: less the mean of the other reference darks; LATENT: less the mean of all",
            "t_start": "from the end of the light to the start of the exposure",
            "signal_adu": "saturated pixels above their surroundings, row by row, less the reference",
            "mean_vison": "mean of the saturated pixels above offset, as the predecessor took it",
        },
    )
    ctx.write_table(
        "background",
        _table(backgrounds, "obsid column frame ccd quadrant background background_err n flag"),
        units={"background": "ADU", "background_err": "ADU", "n": "px"},
        descriptions={"background": "image area above offset, saturated and bright pixels left out"},
    )


def _write_products(ctx: runner.Context, areas: dict, latent: dict) -> None:
    import numpy as np

    from calcamp.detector.arrays import assemble

    image = ctx.detector.region("img", trimmed=False)

    def whole(parts: dict, dtype, fill):
        out = {}
        for quadrant, part in parts.items():
            plane = np.full(ctx.detector.quadrant_shape, fill, dtype)
            plane[image] = part
            out[quadrant] = plane
        return assemble(out, ctx.detector, fill=fill)

    if not areas:
        return
    images = [
        ("MASK", whole({q: a.saturated.astype(np.int32) for q, a in areas.items()}, np.int32, 0), "", {})
    ]
    ctx.write_product(
        "satmask", f"PERSIST01_SATMASK_{ctx.block}_CCD{ctx.ccd}.fits", images, {"CCD_SN": ctx.serial}
    )
    if latent:
        ctx.write_product(
            "latent_map",
            f"PERSIST01_LATENT_{ctx.block}_CCD{ctx.ccd}.fits",
            [("LATENT", whole(latent, np.float32, np.nan), "ADU", {})],
            {"CCD_SN": ctx.serial},
        )


# ---- meta --------------------------------------------------------------------------------------------------
_VALUES = (
    "persistence persistence_err limit95 is_limit significance persistence_judged tau tau_err trapped trapped_err "
    "chi2_dof persistence_vison persistence_vison_err gain_nominal n flag"
)


def meta(ctx: runner.Context) -> None:
    """Amplitude and decay, or an upper limit, by quadrant."""
    gains = ctx.gains()
    rows = ctx.rows("basic", "persistence_frames")
    out = []
    for quadrant in QUADRANTS:
        mine = [r for r in rows if r["quadrant"] == quadrant]
        out.append({"ccd": ctx.ccd, "quadrant": quadrant, **_decay(mine, gains[quadrant])})
    electrons = ("persistence", "persistence_err", "limit95", "persistence_judged", "trapped", "trapped_err")
    ctx.write_table(
        "persistence",
        _table(out, f"ccd quadrant {_VALUES}"),
        units={
            **dict.fromkeys(electrons, "e-/px"),
            **dict.fromkeys(("tau", "tau_err"), "s"),
            **dict.fromkeys(("persistence_vison", "persistence_vison_err"), "ADU"),
            "n": "px",
        },
        descriptions={
            "persistence": "charge in the first latent frame",
            "limit95": "upper end of the 95 % interval (Feldman and Cousins)",
            "is_limit": "not detected at 3.5 sigma: quote the limit",
            "persistence_judged": "the limit where nothing is detected, else the value",
            "trapped": "charge trapped at the end of the light",
            "persistence_vison": "first latent less the mean of the reference darks, as the predecessor took it",
        },
    )


def _decay(rows: list[dict], gain) -> dict:
    """Values of one quadrant from its frames."""
    from calcamp.analysis.persistence import fit_decay

    value, gain_err, nominal = gain
    latent = sorted(
        (r for r in rows if r["kind"] == "LATENT" and r["signal_e"] is not None), key=lambda r: r["obsid"]
    )
    result = dict.fromkeys(_VALUES.split(), math.nan) | {
        "is_limit": False,
        "gain_nominal": nominal,
        "n": 0,
        "flag": "not measured",
    }
    if not latent:
        return result
    number = latent[0]["references"] or 1
    # The reference enters each frame: 1/number of the noise of a frame, the same in all.
    share = math.sqrt(1.0 / (number + 1.0))
    errors = [r["signal_e_err"] for r in latent]
    found = fit_decay(
        [r["t_start"] if r["t_start"] is not None else math.nan for r in latent],
        [r["exptime"] for r in latent],
        [r["signal_e"] for r in latent],
        errors,
        common=share * min(errors),
    )
    relative = (gain_err or 0.0) / value if gain_err is None or math.isfinite(gain_err) else 0.0
    first = found.first
    detected = found.detected
    return result | {
        "persistence": first.value,
        "persistence_err": math.hypot(first.err, first.value * relative),
        "limit95": first.high,
        "is_limit": not detected,
        "significance": found.significance,
        "persistence_judged": first.value if detected else first.high,
        "tau": found.tau,
        "tau_err": found.tau_err,
        "trapped": found.trapped,
        "trapped_err": math.hypot(found.trapped_err, found.trapped * relative),
        "chi2_dof": found.chi2 / found.dof if found.dof > 0 else math.nan,
        **_as_vison(rows, latent),
        "n": latent[0]["n"],
        "flag": found.reason if detected else "",
    }


def _as_vison(rows, latent) -> dict:
    """The predecessor's estimate: means of the saturated pixels, no surroundings, no pixelwise reference."""
    reference = [r["mean_vison"] for r in rows if r["kind"] == "REFERENCE" and r["mean_vison"] is not None]
    if not reference or latent[0]["mean_vison"] is None:
        return {}
    mean = sum(reference) / len(reference)
    spread = math.sqrt(sum((v - mean) ** 2 for v in reference) / max(len(reference) - 1, 1))
    return {"persistence_vison": latent[0]["mean_vison"] - mean, "persistence_vison_err": spread}


if __name__ == "__main__":
    sys.exit(runner.run("persistence", {"basic": basic, "meta": meta}))
