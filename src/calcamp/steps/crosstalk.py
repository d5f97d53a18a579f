"""Cross-talk from the spots of PSF01 and PSF02: patches (xtalk_sex), fit (xtalk_build), matrix (xtalk_meta)."""

from __future__ import annotations

import math

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.steps import runner

NAN = math.nan
_RADIUS = 6  # px, half the side of a patch
_MORE = tuple(f"{name}{end}" for name in ("same_pixel", "early", "late", "quadratic") for end in ("", "_err"))
_WORDS = {
    "coefficient": "ADU in the victim per ADU of a source that stays as bright, sum over the instants fitted",
    "same_pixel": "slope of victim against source at the same instant alone",
    "early": "part of the coefficient that comes before its source; of couplings beyond 5 errors",
    "late": "part of the coefficient that comes after it",
    "quadratic": "change of the coefficient per ADU of the source",
}


def _spots(ctx: runner.Context) -> list[tuple[str, int, int]]:
    """(channel, canonical row, canonical column) of every spot that the locks of the three CCDs found."""
    found = []
    for ccd in CCDS:
        for row in ctx.rows("lock", "stars", ccd):
            if row["status"] == "found" and row["x_ccd"] is not None:
                x, y = ctx.detector.ccd_to_qcan(row["x_ccd"], row["y_ccd"], row["quadrant"])
                found.append((f"{ccd}{row['quadrant']}", math.floor(y + 0.5), math.floor(x + 0.5)))
    return found


def xtalk_sex(ctx: runner.Context) -> None:
    """Product ``patches``: around the canonical place of every spot of any channel, a patch of this CCD's quadrants.

    From raw frames: the level of a patch is fitted later, so the noise of a row's offset never comes in.
    """
    import numpy as np

    from calcamp.analysis.crosstalk import column_profile, cut_patches
    from calcamp.data.raw import RawError
    from calcamp.detector.arrays import quadrant_view
    from calcamp.detector.dq import BADMASK

    spots = _spots(ctx)
    rows, columns = np.array([s[1] for s in spots], int), np.array([s[2] for s in spots], int)
    side = 2 * _RADIUS + 1
    plane = ctx.dq_plane()
    exposures = ctx.readable() if spots else []
    out = np.full((len(exposures), len(spots), len(QUADRANTS), side, side), np.nan, dtype=np.float32)
    profiles = np.zeros((len(QUADRANTS), ctx.detector.columns))
    frames = np.zeros(len(QUADRANTS))
    pre = ctx.detector.region("pre")
    for number, exposure in enumerate(exposures):
        try:
            raw = ctx.read(exposure)
        except RawError as error:
            ctx.exclude(exposure.obsid, f"{error.kind}: {error}")
            continue
        for k, quadrant in enumerate(QUADRANTS):
            if (exposure.obsid, quadrant) in ctx.selection():
                continue
            view = quadrant_view(raw.data, quadrant, ctx.detector)
            level = float(np.mean(view[pre]))
            profiles[k] += column_profile(view[: ctx.detector.image_rows])
            frames[k] += 1
            out[number, :, k] = cut_patches(view, rows, columns, _RADIUS) - np.float32(level)
        ctx.progress(number + 1, len(exposures))
    ctx.current = None
    for k, quadrant in enumerate(QUADRANTS):
        if frames[k]:
            profile = np.pad(profiles[k] / frames[k], _RADIUS)
            for j, column in enumerate(columns):
                out[:, j, k] -= profile[column : column + side].astype(np.float32)[None, None, :]
        if plane is not None:
            bad = (quadrant_view(plane, quadrant, ctx.detector) & int(BADMASK)) != 0
            _blank(out, k, cut_patches(bad, rows, columns, _RADIUS) > 0)
    keys = {"channel": [s[0] for s in spots], "row": [s[1] for s in spots], "column": [s[2] for s in spots]}
    ctx.write_table(
        "xtalk_spots", {"ccd": [ctx.ccd] * len(spots), **keys}, units={"row": "px", "column": "px"}
    )
    ctx.write_table(
        "xtalk_frames", {"ccd": [ctx.ccd] * len(exposures), "obsid": [e.obsid for e in exposures]}
    )
    if out.size:
        name = f"EUC_XTALKPATCHES_CCD{ctx.ccd}_SN_{ctx.serial}_{ctx.block}.fits"
        ctx.write_product("xtalk_patches", name, [("PATCHES", out, "ADU", {})])


def _blank(out, k: int, bad) -> None:
    """Leave bad pixels of quadrant `k` out, in all frames."""
    import numpy as np

    part = out[:, :, k]
    part[:, bad] = np.nan


def xtalk_build(ctx: runner.Context) -> None:
    """Table ``coupling``: the coefficients of every victim, all sources together."""
    import numpy as np

    from calcamp.analysis.crosstalk import CHANNELS, fit_victim, nearer_to_others

    patches, spots = _load(ctx)
    shared = nearer_to_others(np.array([spot[1:] for spot in spots]).reshape(-1, 2), _RADIUS)
    rows = []
    for v, victim in enumerate(CHANNELS):
        if patches is None:
            continue
        hidden = _own(spots, victim, ctx) | shared
        made = fit_victim(patches, v, hidden, lags=ctx.options["lags"], least=ctx.options["source_adu"])
        if made.reason:
            ctx.flag("BADFIT", f"cross-talk: {made.reason}", ccd=int(victim[0]), quadrant=victim[1])
        for s, source in enumerate(CHANNELS):
            if s == v:
                continue
            # A source that shines almost only behind the victim's own spots says nothing of a coupling.
            unseen = not made.err[s] <= ctx.options["largest_err"]
            rows.append(
                {
                    "ccd": int(victim[0]),
                    "quadrant": victim[1],
                    "source": source,
                    "coefficient": NAN if unseen else made.coefficient[s],
                    "coefficient_err": NAN if unseen else made.err[s],
                    **{name: NAN if unseen else getattr(made, name)[s] for name in _MORE},
                    "noise": made.noise,
                    "clipped": made.clipped,
                    "n": made.n,
                    "flag": made.reason or ("behind the victim's own spots" if unseen else ""),
                }
            )
    if patches is None:
        ctx.flag("BADFIT", "cross-talk: no CCD has spots to look at")
    names = [
        "ccd",
        "quadrant",
        "source",
        "coefficient",
        "coefficient_err",
        *_MORE,
        "noise",
        "clipped",
        "n",
        "flag",
    ]
    ctx.write_table(
        "coupling",
        {name: [row[name] for row in rows] for name in names},
        units={"noise": "ADU", "quadratic": "1/ADU", "quadratic_err": "1/ADU"},
        descriptions={"ccd": "of the victim", **_WORDS, "n": "pixels of all frames"},
    )


def _load(ctx: runner.Context):
    """(patches of the twelve channels [frames, spots, 12, s, s] of the frames that all CCDs have, spots)."""
    import numpy as np

    from calcamp.data.fitsfile import read_image

    parts, obsids, spots = {}, {}, None
    for ccd in CCDS:
        folder = ctx.sibling("xtalk_sex", ccd) / "products"
        files = sorted(folder.glob("EUC_XTALKPATCHES_*.fits")) if folder.is_dir() else []
        if files:
            parts[ccd] = np.asarray(read_image(files[0], "PATCHES")[0], dtype=np.float32)
            obsids[ccd] = [row["obsid"] for row in ctx.rows("xtalk_sex", "xtalk_frames", ccd)]
            spots = [(r["channel"], r["row"], r["column"]) for r in ctx.rows("xtalk_sex", "xtalk_spots", ccd)]
    if not parts or not spots:
        return None, []
    every = sorted({obsid for members in obsids.values() for obsid in members})
    place = {obsid: n for n, obsid in enumerate(every)}
    side = 2 * _RADIUS + 1
    out = np.full((len(every), len(spots), 12, side, side), np.nan, dtype=np.float32)
    for ccd, part in parts.items():
        at = [place[obsid] for obsid in obsids[ccd]]
        out[at, :, 4 * (ccd - 1) : 4 * ccd] = part
    return out, spots


def _own(spots, victim: str, ctx: runner.Context):
    """Pixels of each patch that are near a spot of the victim itself, bool (spots, s, s)."""
    import numpy as np

    reach = 5 + ctx.options["mask_grow"]
    y, x = np.mgrid[-_RADIUS : _RADIUS + 1, -_RADIUS : _RADIUS + 1]
    own = np.zeros((len(spots), 2 * _RADIUS + 1, 2 * _RADIUS + 1), bool)
    for j, (_, row, column) in enumerate(spots):
        for channel, r, c in spots:
            if channel == victim and abs(r - row) <= reach + _RADIUS and abs(c - column) <= reach + _RADIUS:
                own[j] |= np.hypot(row + y - r, column + x - c) <= reach
    return own


def xtalk_meta(ctx: runner.Context) -> None:
    """Tables ``crosstalk`` and ``crosstalk_victims``; product ``crosstalk``: the 12 x 12 matrix with errors."""
    import numpy as np

    from calcamp.analysis.crosstalk import CHANNELS, pair_strength, victim_rows
    from calcamp.data.products import CROSSTALK_UNITS, CROSSTALK_WORDS, crosstalk_images

    rows = ctx.rows("xtalk_build", "coupling")
    matrix, error = np.full((12, 12), np.nan), np.full((12, 12), np.nan)
    for row in rows:
        v, s = CHANNELS.index(f"{row['ccd']}{row['quadrant']}"), CHANNELS.index(row["source"])
        matrix[s, v] = NAN if row["coefficient"] is None else row["coefficient"]
        error[s, v] = NAN if row["coefficient_err"] is None else row["coefficient_err"]
        row |= pair_strength(matrix[s, v], error[s, v])
    names = (
        "ccd quadrant source coefficient coefficient_err significance upper95 full_scale full_scale_err "
        f"{' '.join(_MORE)} n flag"
    )
    ctx.write_table(
        "crosstalk",
        {name: [row[name] for row in rows] for name in names.split()},
        units={**CROSSTALK_UNITS, "quadratic": "1/ADU", "quadratic_err": "1/ADU"},
        descriptions={**CROSSTALK_WORDS, **_WORDS},
    )
    victims = victim_rows(matrix, error, ctx.options["significance"])
    ctx.write_table(
        "crosstalk_victims",
        {name: [row[name] for row in victims] for name in victims[0]},
        descriptions={
            "largest_upper95": "upper 95 % bound of the size of the largest coefficient",
            "significant": "coefficients beyond the significance asked for",
        },
    )
    ctx.write_product(
        "crosstalk",
        f"EUC_CROSSTALK_{ctx.block}.fits",
        crosstalk_images(matrix, error),
        {"CHANNELS": " ".join(CHANNELS)},
    )


TASKS = {"xtalk_sex": xtalk_sex, "xtalk_build": xtalk_build, "xtalk_meta": xtalk_meta}

if __name__ == "__main__":
    import sys

    sys.exit(runner.run("crosstalk", TASKS))
