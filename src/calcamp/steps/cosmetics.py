"""COSMETICS00: defect masks of a CCD (masks), what changed since the mask in use (meta)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import QUADRANTS
from calcamp.steps import runner

_PREP = {"offset": "smooth", "scan": "pre", "use_mask": False, "use_bias": False, "use_flat": False}


def masks(ctx: runner.Context) -> None:
    """Defects of one CCD in frames without light and in flats; masks, bits, lists and counts."""
    from calcamp.analysis.cosmetics import Cuts, merge

    ctx.prep_options = dict(_PREP)
    cuts = Cuts(
        **{k: v for k, v in ctx.options.items() if k in Cuts.__dataclass_fields__},
        old_column=ctx.detector.min_column_length,
    )
    found: dict[str, dict] = {"dark": {}, "flat": {}}
    bits: dict[str, list] = {q: [] for q in QUADRANTS}
    for kind in found:
        _search(ctx, kind, cuts, found[kind], bits)
    ctx.current = None
    _second_level(ctx, cuts, found["flat"])
    _master_dark(ctx, bits)
    results = {}
    for quadrant in QUADRANTS:
        dark, flat = found["dark"].get(quadrant), found["flat"].get(quadrant)
        results[quadrant] = merge(ctx.detector.image_shape, dark, flat, bits[quadrant], cuts)
        for name, search in (("without light", dark), ("flat", flat)):
            if search is None:
                ctx.flag(
                    "BADDATAPROD",
                    f"no usable frame {name}: the mask is without its defects",
                    quadrant=quadrant,
                )
            elif search.frames < 3:
                ctx.flag(
                    "MISSDATA",
                    f"{search.frames} frames {name}: cosmic rays can pass for defects",
                    quadrant=quadrant,
                )
    _write_counts(ctx, results)
    _write_stacks(ctx, results)
    _write_defects(ctx, results)
    _write_columns(ctx, results)
    _write_clusters(ctx, results)
    _write_histograms(ctx, results)
    _write_products(ctx, results, cuts)


# ---- measuring -------------------------------------------------------------------------------------------
def _search(ctx: runner.Context, kind: str, cuts, found: dict, bits: dict) -> None:
    """Search the frames of one kind, all of them in memory at a time."""
    import numpy as np

    from calcamp.analysis.cosmetics import search_dark, search_flat
    from calcamp.detector.dq import DQ

    frames = _prepared(ctx, kind)
    image = ctx.detector.region("img", trimmed=False)

    def search(quadrant: str) -> None:
        used = [p for e, p in frames if (e.obsid, quadrant) not in ctx.selection()]
        if kind == "flat":
            used = [p for p in used if _is_flat(p, quadrant)]
        if not used:
            return
        least = cuts.vote * len(used)
        own = np.zeros(ctx.detector.image_shape, np.uint32)
        for bit in (DQ.SATURATED, DQ.LOST):
            flagged = [p.own[quadrant][image] & np.uint32(bit) for p in used if p.own[quadrant] is not None]
            if flagged:
                own[np.sum([f != 0 for f in flagged], axis=0) >= least] |= np.uint32(bit)
        invalid = own != 0
        share = float(invalid.mean())
        if share > 0.2:
            ctx.flag(
                "SATURATION",
                f"{100 * share:.0f} % of the pixels have no value in the {kind} frames",
                quadrant=quadrant,
            )
            return
        bits[quadrant].append(own)
        if kind == "dark":
            columns = slice(image[1].start, image[1].stop)
            last = used[0].calibration.window[1]
            areas = [p.area(quadrant, slice(0, last), columns) for p in used]
            found[quadrant] = search_dark(
                areas, ctx.detector.image_rows, cuts, invalid if invalid.any() else None
            )
        else:
            found[quadrant] = search_flat(
                [p.image(quadrant) for p in used], cuts, invalid if invalid.any() else None
            )

    for quadrant in QUADRANTS:
        search(quadrant)


def _prepared(ctx: runner.Context, kind: str) -> list:
    """(exposure, prepared frame) of the frames without light, or of the flats; by what was exposed, not by place."""
    from calcamp.analysis.prepare import prepare
    from calcamp.data.raw import RawError

    out = []
    wanted = [e for e in ctx.readable() if (float(e.values.get("exptime") or 0) > 0) == (kind == "flat")]
    for number, exposure in enumerate(wanted, 1):
        vstart = int(exposure.values.get("vstart") or 0)
        vend = int(exposure.values.get("vend") or ctx.detector.commanded_rows)
        try:
            raw = ctx.read(exposure)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        prepared = prepare(
            raw.data,
            ctx.detector,
            _PREP,
            vstart=vstart,
            vend=vend,
            grow=0,
            on_demand=True,
            calibration=ctx.calibration(vstart, vend),
        )
        out.append((exposure, prepared))
        ctx.progress(number, len(wanted))
    if kind == "flat":
        _flag_unlit(ctx, out)
    return out


def _flag_unlit(ctx: runner.Context, frames: list) -> None:
    for exposure, prepared in frames:
        dark = [q for q in QUADRANTS if not _is_flat(prepared, q)]
        for quadrant in dark if len(dark) < 4 else (None,):
            cause = "no light in a flat"
            scope = {"obsid": exposure.obsid, **({"quadrant": quadrant} if quadrant else {})}
            ctx.flag("SOURCEOFF", cause, **scope)
            ctx.exclude(exposure.obsid, cause, quadrant)


def _is_flat(prepared, quadrant: str) -> bool:
    from calcamp.analysis.cosmetics import LEAST_FLAT
    from calcamp.analysis.statistics import clipped

    return clipped(prepared.image(quadrant)[::31, ::31], 5.0, rounded=0).mean >= LEAST_FLAT


def _second_level(ctx: runner.Context, cuts, found: dict) -> None:
    """Confirm dead pixels with the flat product, where one is named: another light level."""
    from pathlib import Path

    import numpy as np

    from calcamp.analysis.cosmetics import both_levels
    from calcamp.data.products import load_flat
    from calcamp.detector.arrays import quadrant_view

    product = ctx.product("flat")
    ctx.notes["flat_levels"] = 2 if product else 1
    if not product:
        return
    plane = load_flat(Path(product["path"]), ctx.detector, ctx.serial, ctx.ccd)
    image = ctx.detector.region("img", trimmed=False)
    for quadrant, search in found.items():
        second = quadrant_view(plane.data, quadrant, ctx.detector)[image]
        found[quadrant] = both_levels(search, np.asarray(second, np.float32), cuts)


def _master_dark(ctx: runner.Context, bits: dict) -> None:
    """Hot pixels and columns of the master dark, where one is named."""
    from pathlib import Path

    import numpy as np

    from calcamp.data.products import load_dark
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import DQ

    product = ctx.product("dark")
    ctx.notes["hot_pixels_from"] = "master dark" if product else "frames without exposure"
    if not product:
        return
    made = load_dark(Path(product["path"]), ctx.detector, ctx.serial, ctx.ccd)
    wanted = DQ.HOT | DQ.BRIGHT_COL | DQ.BAD_COL | DQ.PARTIAL_COL | DQ.UNSTABLE | DQ.MASKED
    image = ctx.detector.region("img", trimmed=False)
    for quadrant in QUADRANTS:
        if made.dq is not None:
            plane = quadrant_view(made.dq, quadrant, ctx.detector)[image] & np.uint32(wanted)
        else:
            plane = _hot_of(ctx, quadrant_view(made.data, quadrant, ctx.detector)[image], made, quadrant)
        bits[quadrant].append(plane)


def _hot_of(ctx: runner.Context, area, made, quadrant: str):
    """Hot pixels of a master dark that has no bits of its own (of the predecessor)."""
    import numpy as np

    from calcamp.analysis.defects import local_background
    from calcamp.analysis.statistics import robust_std
    from calcamp.detector.dq import DQ

    residual = area - local_background(area)
    time = made.info.header.get("EXPTIME") or 565.0
    least = ctx.options.get("dark_rate_e_s", 0.05) * float(time) / ctx.gains()[quadrant][0]
    hot = residual > max(least, 5.5 * robust_std(residual))
    return np.where(hot, np.uint32(DQ.HOT), np.uint32(0))


# ---- tables ----------------------------------------------------------------------------------------------
def _table(rows: list[dict], names: str) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in names.split()}


_KINDS = "bad_pixels bad_columns partial_columns old_columns hot bright_column_pixels dead low high over unstable saturated lost cluster_pixels"


def _write_counts(ctx: runner.Context, results: dict) -> None:
    """Table ``cosmetics``: counts by quadrant for the dark, the flat and the merged mask."""
    from calcamp.analysis.cosmetics import counts

    rows = []
    size = ctx.detector.image_rows * ctx.detector.image_columns
    for quadrant, result in results.items():
        parts = {"dark": result.dark, "flat": result.flat, "merged": result}
        for mask, part in parts.items():
            if part is None:
                values = dict.fromkeys(_KINDS.split(), math.nan)
            else:
                values = counts(part.dq, ctx.detector.min_column_length)
            complete = result.dark is not None and result.flat is not None
            rows.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "mask": mask,
                    **{name: float(value) for name, value in values.items()},
                    "lost_area": 100 * values["bad_pixels"] / size,
                    "clusters": float(len(result.clusters)) if mask == "merged" else math.nan,
                    "largest_cluster": float(max(result.clusters, default=0))
                    if mask == "merged"
                    else math.nan,
                    "n": 0 if part is None else size,
                    "flag": "" if mask != "merged" or complete else "incomplete",
                }
            )
    ctx.write_table(
        "cosmetics",
        _table(rows, f"ccd quadrant mask {_KINDS} lost_area clusters largest_cluster n flag"),
        units={
            **dict.fromkeys(_KINDS.split(), "px"),
            "lost_area": "%",
            "clusters": "1",
            "largest_cluster": "px",
        },
        descriptions={
            "bad_pixels": "with a bit of BADMASK",
            "bad_columns": "columns with a detected run of rows",
            "partial_columns": "of these, the run starts or ends inside the array",
            "old_columns": f"more than {ctx.detector.min_column_length} bad pixels, the predecessor's count",
            "dead": "response below the limit, outside bad columns; low, high and over likewise",
            "unstable": "shown by too few of the frames: not in the mask",
            "lost_area": "bad pixels over the pixels of the image area",
            "clusters": "groups of at least two touching bad pixels, columns left out",
        },
    )


def _searches(results: dict):
    for quadrant, result in results.items():
        for source in ("dark", "flat"):
            search = getattr(result, source)
            if search is not None:
                yield quadrant, source, search, result


def _write_stacks(ctx: runner.Context, results: dict) -> None:
    """Table ``cosmetics_stacks``: frames, level and scatter of what was searched."""
    rows = [
        {
            "ccd": ctx.ccd,
            "quadrant": quadrant,
            "source": source,
            "frames": search.frames,
            "level": search.level,
            "scatter": search.scatter,
            "n": search.map.size,
            "flag": "",
        }
        for quadrant, source, search, _ in _searches(results)
    ]
    ctx.write_table(
        "cosmetics_stacks",
        _table(rows, "ccd quadrant source frames level scatter n flag"),
        units={"level": "ADU", "n": "px"},
        meta={k: ctx.notes[k] for k in ("flat_levels", "hot_pixels_from")},
        descriptions={
            "source": "dark: frames of exposure time 0; flat: flats, relative to their surroundings",
            "scatter": "typical local scatter of a pixel of the stack: ADU (dark), relative response (flat)",
        },
    )


def _kind_of(source: str, value: float, options: dict) -> str:
    if source == "dark":
        return "hot"
    response = 1 + value
    if response < options.get("dead", 0.5):
        return "dead"
    if response < options.get("low", 0.8):
        return "low"
    if response > options.get("over", 1.5):
        return "over"
    if response > options.get("high", 1.2):
        return "high"
    return "weak"


def _write_defects(ctx: runner.Context, results: dict) -> None:
    """Table ``defects``: single pixels that stand out, those outside the mask (weak) included."""
    import numpy as np

    rows = []
    width = ctx.detector.image_columns
    for quadrant, source, search, result in _searches(results):
        cluster = dict(zip(result.cluster_pixels.tolist(), result.cluster_labels.tolist(), strict=True))
        p = search.pixels
        order = np.argsort(-np.abs(p.significance), kind="stable")
        for k in order.tolist():
            row, column = int(p.row[k]), int(p.column[k])
            value = float(p.value[k])
            rows.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "source": source,
                    "kind": _kind_of(source, value, ctx.options),
                    "row": row,
                    "column": column,
                    "value": value if source == "dark" else 1 + value,
                    "value_err": float(p.err[k]),
                    "significance": float(p.significance[k]),
                    "votes": float(p.votes[k]),
                    "cluster": cluster.get(row * width + column, -1),
                }
            )
    ctx.write_table(
        "defects",
        _table(rows, "ccd quadrant source kind row column value value_err significance votes cluster"),
        units={"row": "px", "column": "px"},
        descriptions={
            "kind": "weak: significant, but between the limits of low and high response; not in the mask",
            "row": "of the image area, canonical",
            "value": "dark: ADU above the surroundings; flat: response relative to them",
            "value_err": "local scatter of a pixel",
            "votes": "share of the frames that show it",
            "cluster": "number of the group in the quadrant, -1: none",
        },
    )


def _write_columns(ctx: runner.Context, results: dict) -> None:
    """Table ``defect_columns``: whole and partial columns."""
    rows = [
        {
            "ccd": ctx.ccd,
            "quadrant": quadrant,
            "source": source,
            "column": c.column,
            "first_row": c.first,
            "last_row": c.last,
            "value": c.level,
            "value_err": c.level_err,
            "significance": c.significance,
            "partial": c.partial,
            "n": c.length,
        }
        for quadrant, source, search, _ in _searches(results)
        for c in search.columns
    ]
    ctx.write_table(
        "defect_columns",
        _table(rows, "ccd quadrant source column first_row last_row value value_err significance partial n"),
        units={**dict.fromkeys(("column", "first_row", "last_row", "n"), "px")},
        descriptions={"value": "of its pixels above the neighbours: ADU (dark), relative response (flat)"},
    )


def _write_clusters(ctx: runner.Context, results: dict) -> None:
    """Table ``clusters``: groups of touching bad pixels."""
    import numpy as np

    rows = []
    for quadrant, result in results.items():
        r, c = np.divmod(result.cluster_pixels, ctx.detector.image_columns)
        for label, size in enumerate(result.clusters.tolist()):
            inside = result.cluster_labels == label
            rows.append(
                {
                    "ccd": ctx.ccd,
                    "quadrant": quadrant,
                    "cluster": label,
                    "row": float(r[inside].mean()),
                    "column": float(c[inside].mean()),
                    "height": int(np.ptp(r[inside])) + 1,
                    "width": int(np.ptp(c[inside])) + 1,
                    "n": int(size),
                }
            )
    ctx.write_table(
        "clusters",
        _table(rows, "ccd quadrant cluster row column height width n"),
        units=dict.fromkeys(("row", "column", "height", "width", "n"), "px"),
        descriptions={"row": "mean of its pixels, image area, canonical"},
    )


def _write_histograms(ctx: runner.Context, results: dict) -> None:
    """Table ``cosmetics_histogram``: all pixels of the maps that were searched."""
    import numpy as np

    columns = {name: [] for name in ("ccd", "quadrant", "source", "value", "count")}
    ranges = {"dark": (-20.0, 100.0, 0.25), "flat": (0.0, 2.0, 0.005)}
    for quadrant, source, search, _ in _searches(results):
        low, high, step = ranges[source]
        number = round((high - low) / step)
        # The ends collect what lies beyond.
        at = ((search.map - np.float32(low)) * np.float32(1 / step)).astype(np.int32)
        np.clip(at, 0, number - 1, out=at)
        count = np.bincount(at.reshape(-1), minlength=number)
        filled = np.flatnonzero(count)
        columns["ccd"] += [ctx.ccd] * filled.size
        columns["quadrant"] += [quadrant] * filled.size
        columns["source"] += [source] * filled.size
        columns["value"] += (low + (filled + 0.5) * step).tolist()
        columns["count"] += count[filled].tolist()
    ctx.write_table(
        "cosmetics_histogram",
        columns,
        units={"count": "px"},
        descriptions={
            "value": "centre of a bin: ADU above the surroundings (dark), relative response (flat)"
        },
    )


# ---- products --------------------------------------------------------------------------------------------
def _write_products(ctx: runner.Context, results: dict, cuts) -> None:
    """Masks in the predecessor's form, dark, flat and merged, and the bits."""
    import numpy as np

    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import BADMASK, DQ

    det, image = ctx.detector, ctx.detector.region("img", trimmed=False)

    def whole(parts: dict, dtype, fill=0):
        frame = np.full(det.ccd_shape, fill, dtype)
        for quadrant, part in parts.items():
            quadrant_view(frame, quadrant, det)[image] = part
        return frame

    def old(dq):
        return (dq & np.uint32(BADMASK | DQ.WHOLE_COL)) != 0

    stem = f"{ctx.block}_CCD{ctx.ccd}_SN_{ctx.serial}.fits"
    common = {"SN": ctx.serial, "FUNCTION": "calcamp.steps.cosmetics"}
    limits = {
        "dark": f"[none, {cuts.dark_least:g}] ADU, {cuts.dark_sigma:g} sigma",
        "flat": f"[{cuts.dead:g}, {cuts.over:g}], {cuts.flat_sigma:g} sigma",
    }
    names = {}
    for source, prefix in (("dark", "DKMASK"), ("flat", "FLMASK")):
        found = {q: getattr(r, source) for q, r in results.items() if getattr(r, source) is not None}
        if not found:
            continue
        names[source] = f"EUC_{prefix}_{stem}"
        ctx.write_product(
            f"{source}_mask",
            names[source],
            [
                ("MASK", whole({q: old(s.dq) for q, s in found.items()}, np.int32), "", {}),
                (
                    "DEFECTS",
                    whole({q: s.map for q, s in found.items()}, np.float32),
                    "ADU" if source == "dark" else "",
                    {},
                ),
            ],
            {
                **common,
                "MASKTYPE": prefix.lower(),
                "THRESH": limits[source],
                "SUBBGD": source == "dark",
                "NORMED": source == "flat",
            },
        )
    if not names:
        return
    merged = {q: r.dq for q, r in results.items()}
    ctx.write_product(
        "mask",
        f"EUC_MASK_{stem}",
        [("MASK", whole({q: old(dq) for q, dq in merged.items()}, np.int32), "", {})],
        {
            **common,
            "MASKTYPE": "COMBO",
            "DKMASK": names.get("dark", "none"),
            "FLMASK": names.get("flat", "none"),
        },
    )
    bits = {f"BIT{bit.value.bit_length() - 1:02d}": bit.name for bit in DQ}
    ctx.write_product(
        "dq",
        f"EUC_DQ_{stem}",
        [("DQ", whole(merged, np.uint32), "", bits)],
        {
            **common,
            "MASKTYPE": "DQ",
            "HOTFROM": ctx.notes.get("hot_pixels_from", ""),
            "FLATLEV": ctx.notes["flat_levels"],
        },
    )


# ---- meta --------------------------------------------------------------------------------------------------
def meta(ctx: runner.Context) -> None:
    """Table ``mask_changes``: the new mask against the one that the block uses now; ``defect_tiles``."""
    import numpy as np

    from calcamp.data.products import load_mask
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import BADMASK, DQ

    made = sorted((ctx.sibling("masks") / "products").glob("EUC_DQ_*.fits"))
    if not made:
        ctx.flag("BADDATAPROD", "masks made no mask")
        return
    new, _ = load_mask(made[0], ctx.detector)
    earlier = ctx.dq_plane()
    image = ctx.detector.region("img", trimmed=False)
    changes, tiles = [], []
    for quadrant in QUADRANTS:
        bad = (quadrant_view(new, quadrant, ctx.detector)[image] & np.uint32(BADMASK)) != 0
        # As the 0/1 mask: whole columns of the old rule included, they are in the mask in use too.
        kept_out = np.uint32(BADMASK | DQ.WHOLE_COL)
        masked = (quadrant_view(new, quadrant, ctx.detector)[image] & kept_out) != 0
        row = {"ccd": ctx.ccd, "quadrant": quadrant, "masked": int(masked.sum())}
        if earlier is None:
            row |= dict.fromkeys(("kept", "new", "vanished"), math.nan) | {"flag": "no mask in use"}
        else:
            was = (quadrant_view(earlier, quadrant, ctx.detector)[image] & kept_out) != 0
            row |= {
                "kept": float((masked & was).sum()),
                "new": float((masked & ~was).sum()),
                "vanished": float((~masked & was).sum()),
                "flag": "",
            }
        changes.append(row)
        rows, columns = ctx.detector.tile_edges()
        count = np.add.reduceat(
            np.add.reduceat(bad.astype(np.int32), rows[:-1], axis=0), columns[:-1], axis=1
        )
        tiles += [
            {"ccd": ctx.ccd, "quadrant": quadrant, "tile_row": i, "tile_column": j, "bad_pixels": int(n)}
            for (i, j), n in np.ndenumerate(count)
        ]
    ctx.write_table(
        "mask_changes",
        _table(changes, "ccd quadrant masked kept new vanished flag"),
        units=dict.fromkeys(("masked", "kept", "new", "vanished"), "px"),
        descriptions={
            "new": "bad now, good in the mask in use",
            "vanished": "bad in the mask in use, good now",
        },
    )
    ctx.write_table(
        "defect_tiles",
        _table(tiles, "ccd quadrant tile_row tile_column bad_pixels"),
        units={"bad_pixels": "px"},
    )


if __name__ == "__main__":
    sys.exit(runner.run("cosmetics", {"masks": masks, "meta": meta}))
