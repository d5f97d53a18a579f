"""PTC01, PTC02: pair covariances and edges (extract_PTC), covariance model, gain (meta), hard edge (extract_HER)."""

from __future__ import annotations

import math
import sys

from calcamp.detector.geometry import CCDS, QUADRANTS
from calcamp.steps import runner
from calcamp.steps.lit import errs, stream, table

EDGES = ("serial", "parallel")


# ---- extract ------------------------------------------------------------------------------------------
def extract(ctx: runner.Context) -> None:
    """One pass over the frames: covariances of pairs, tiles, and profiles behind the edges of the image."""
    from calcamp.analysis.her import edge_profile

    pairs, tiles, covariances, edges = [], [], [], []
    waiting = None
    for lit in stream(ctx):
        for quadrant in QUADRANTS:
            if (lit.exposure.obsid, quadrant) in ctx.selection():
                continue
            mask = lit.prepared.mask(quadrant) if lit.masks(quadrant)[0] is not None else None
            for edge in EDGES:
                found = edge_profile(lit.prepared.data[quadrant], ctx.detector, edge, mask)
                if found is not None:
                    edges.append((lit.exposure, quadrant, edge, found))
        if waiting is not None and waiting.exposure.column == lit.exposure.column:
            _measure(ctx, waiting, lit, pairs, tiles, covariances)
            waiting = None
        else:
            _alone(ctx, waiting)
            waiting = lit
    _alone(ctx, waiting)
    _write_pairs(ctx, pairs)
    _write_covariances(ctx, covariances)
    _write_tiles(ctx, tiles)
    _write_edges(ctx, edges)


def _alone(ctx: runner.Context, lit) -> None:
    if lit is not None:
        ctx.notes.setdefault("unpaired", []).append(lit.exposure.obsid)


def _measure(ctx: runner.Context, one, two, pairs, tiles, covariances) -> None:
    """All quadrants of one pair, into the lists of rows."""
    import numpy as np

    from calcamp.analysis.ptc import measure_pair

    options = ctx.options
    for quadrant in QUADRANTS:
        if any((lit.exposure.obsid, quadrant) in ctx.selection() for lit in (one, two)):
            continue
        (bad1, full1), (bad2, full2) = one.masks(quadrant), two.masks(quadrant)
        pair = measure_pair(
            one.image(quadrant),
            two.image(quadrant),
            ctx.detector.tile_edges(),
            _either(bad1, bad2),
            _either(full1, full2),
            options.get("lags", 8),
            options.get("clip_sigma", 5.5),
            options.get("max_flux_difference", 0.1),
        )
        keys = {
            "column": one.exposure.column,
            "obsid": one.exposure.obsid,
            "obsid2": two.exposure.obsid,
            "ccd": ctx.ccd,
            "quadrant": quadrant,
            "linear_max": one.linear_max(quadrant),
        }
        pairs.append((keys, pair))
        if pair.n:
            covariances.append((keys, pair))
        for i, j in np.argwhere(pair.tile_n > 0):
            tiles.append(
                {
                    **keys,
                    "tile_row": int(i),
                    "tile_column": int(j),
                    "mu": float(pair.tile_mu[i, j]),
                    "variance": float(pair.tile_variance[i, j]),
                    "n": int(pair.tile_n[i, j]),
                }
            )


def _either(a, b):
    if a is None or b is None:
        return b if a is None else a
    return a | b


_PAIR = "mu mu1 mu2 ratio variance variance_err c_parallel c_serial c_diagonal m2 m3 m4 ks_p clipped tiles_saturated"


def _write_pairs(ctx: runner.Context, pairs: list) -> None:
    """Table ``ptc_pairs``: signal, variance and neighbours' covariance of every pair."""
    rows = []
    for keys, p in pairs:
        rows.append(
            {
                **keys,
                "mu": p.mu,
                "mu1": p.mu1,
                "mu2": p.mu2,
                "ratio": p.ratio,
                "variance": p.covariance[0, 0],
                "variance_err": p.err[0, 0],
                "c_parallel": p.covariance[1, 0],
                "c_serial": p.covariance[0, 1],
                "c_diagonal": p.covariance[1, 1],
                "m2": p.moments[0],
                "m3": p.moments[1],
                "m4": p.moments[2],
                "ks_p": p.ks_p,
                "clipped": p.clipped,
                "tiles_saturated": p.tiles_saturated,
                "n": p.n,
                "flag": p.flag,
            }
        )
    units = dict.fromkeys(("mu", "mu1", "mu2", "linear_max"), "ADU")
    units |= dict.fromkeys(("variance", "variance_err", "c_parallel", "c_serial", "c_diagonal"), "ADU2")
    ctx.write_table(
        "ptc_pairs",
        table(rows, f"column obsid obsid2 ccd quadrant {_PAIR} linear_max n flag"),
        units=units,
        descriptions={
            "obsid": "first frame of the pair",
            "variance": "of a frame at the mean flux; clip corrected, rounding of the ADC included",
            "c_parallel": "covariance with the parallel neighbour",
            "m2": "mean of mu² over the square of the mean: the illumination is not uniform",
            "ks_p": "probability that the difference is normal (Kolmogorov-Smirnov, 10000 px)",
            "clipped": "pixels left out of the difference, rims included",
            "linear_max": "end of the linearity product's range: no pair above is fitted",
        },
    )


def _write_covariances(ctx: runner.Context, pairs: list) -> None:
    """Table ``ptc_covariances``: a row per pair, quadrant and lag."""
    import numpy as np

    columns = {
        name: []
        for name in [
            "column",
            "obsid",
            "ccd",
            "quadrant",
            "lag_parallel",
            "lag_serial",
            "covariance",
            "covariance_err",
        ]
    }
    for keys, p in pairs:
        lags = p.covariance.shape[0]
        i, j = np.divmod(np.arange(lags * lags), lags)
        for name in ("column", "obsid", "ccd", "quadrant"):
            columns[name] += [keys[name]] * (lags * lags)
        columns["lag_parallel"] += i.tolist()
        columns["lag_serial"] += j.tolist()
        columns["covariance"] += p.covariance.reshape(-1).tolist()
        columns["covariance_err"] += p.err.reshape(-1).tolist()
    ctx.write_table("ptc_covariances", columns, units=errs("covariance", "ADU2"))


def _write_tiles(ctx: runner.Context, tiles: list) -> None:
    """Table ``ptc_tile_points``: signal and variance of every pair and tile."""
    ctx.write_table(
        "ptc_tile_points",
        table(tiles, "column obsid ccd quadrant tile_row tile_column mu variance n"),
        units={"mu": "ADU", "variance": "ADU2", "n": "pix"},
        descriptions={"tile_row": "canonical, from the node"},
    )


def _write_edges(ctx: runner.Context, edges: list) -> None:
    """Table ``edge_profiles``: mean over the frames of a column of what follows the edges of the image."""
    import numpy as np

    groups: dict[tuple, list] = {}
    for exposure, quadrant, edge, found in edges:
        groups.setdefault((exposure.column, quadrant, edge), []).append(found)
    columns = {
        name: []
        for name in ["column", "ccd", "quadrant", "edge", "pixel", "signal", "response", "response_err", "n"]
    }
    for (column, quadrant, edge), items in groups.items():
        response = np.mean([e.response for e in items], axis=0)
        err = np.sqrt(np.sum([e.err**2 for e in items], axis=0)) / len(items)
        signal = float(np.mean([e.signal for e in items]))
        n = len(response)
        for name, value in (("column", column), ("ccd", ctx.ccd), ("quadrant", quadrant), ("edge", edge)):
            columns[name] += [value] * n
        columns["pixel"] += list(range(1, n + 1))
        columns["signal"] += [signal] * n
        columns["response"] += response.tolist()
        columns["response_err"] += err.tolist()
        columns["n"] += [len(items)] * n
    ctx.write_table(
        "edge_profiles",
        columns,
        units={"signal": "ADU", "pixel": "px", **errs("response", "ADU")},
        descriptions={
            "signal": "step: mean of the ten image pixels before the edge",
            "response": "level of this overscan pixel above those from the eleventh on",
        },
    )


# ---- meta ---------------------------------------------------------------------------------------------
def read_channels(ctx: runner.Context, subtask: str = "extract_PTC") -> dict[tuple[int, str], dict]:
    """Pairs of each channel as arrays: mu, covariance, err, moments, ks_p, obsid, column; tiles beside."""
    import numpy as np

    from calcamp.steps.lit import linearity

    channels = {}
    for ccd in CCDS:
        pairs = ctx.rows(subtask, "ptc_pairs", ccd)
        if not pairs:
            continue
        corrections = linearity(ctx, ccd)
        columns = _columns(ctx, subtask, "ptc_covariances", ccd)
        lags = int(max(columns["lag_serial"], default=-1)) + 1
        c, e = (np.array(columns[n], float).reshape(-1, lags, lags) for n in ("covariance", "covariance_err"))
        keys = list(zip(columns["obsid"][:: lags * lags], columns["quadrant"][:: lags * lags], strict=True))
        index = {key: k for k, key in enumerate(keys)}
        points = _columns(ctx, subtask, "ptc_tile_points", ccd)
        for quadrant in QUADRANTS:
            rows = [r for r in pairs if r["quadrant"] == quadrant and (r["obsid"], quadrant) in index]
            if not rows:
                continue
            take = [index[r["obsid"], quadrant] for r in rows]

            def array(name, rows=rows):
                return np.array([math.nan if r[name] is None else r[name] for r in rows], float)

            channels[ccd, quadrant] = {
                "mu": array("mu"),
                "covariance": c[take],
                "err": e[take],
                "moments": np.stack([array(m) for m in ("m2", "m3", "m4")], axis=1),
                "ks_p": array("ks_p"),
                "column": array("column").astype(int),
                "obsid": array("obsid").astype(int),
                "obsid2": array("obsid2").astype(int),
                "linear_max": float(np.nanmin(np.append(array("linear_max"), math.inf))),
                "tiles": _tile_arrays(points, quadrant, [r["obsid"] for r in rows], ctx.detector.tiles),
                "common": None,
            }
            # Pairs were corrected by one curve: its error is one error of all of them.
            correction = corrections.get(quadrant)
            if correction is not None and len(correction.knots):
                spread = np.sqrt(np.maximum(np.nan_to_num(array("m2"), nan=1.0) - 1.0, 0.0))
                channels[ccd, quadrant]["common"] = correction.directions(
                    np.nan_to_num(array("mu"), nan=1.0), spread
                )
    return channels


def _columns(ctx: runner.Context, subtask: str, subject: str, ccd: int) -> dict[str, list]:
    from calcamp.data.tables import table_columns

    path = ctx.sibling(subtask, ccd) / f"{subject}.ecsv"
    return table_columns(path)[0]


def _tile_arrays(points: dict, quadrant: str, obsids: list[int], shape: tuple[int, int]):
    """(mu, variance, n) of shape (pairs, tiles)."""
    import numpy as np

    where = np.array(points["quadrant"]) == quadrant
    order = {obsid: k for k, obsid in enumerate(obsids)}
    mu, variance = (np.full((len(obsids), shape[0] * shape[1]), np.nan) for _ in range(2))
    n = np.zeros(mu.shape)
    if where.any():
        pair = np.array([order.get(o, -1) for o in np.array(points["obsid"])[where]])
        tile = np.array(points["tile_row"])[where] * shape[1] + np.array(points["tile_column"])[where]
        keep = pair >= 0
        for target, name in ((mu, "mu"), (variance, "variance"), (n, "n")):
            target[pair[keep], tile[keep]] = np.array(points[name], float)[where][keep]
    return mu, variance, n


def overscan_noise(ctx: runner.Context, ccd: int, quadrant: str) -> tuple[float, float] | None:
    """(noise, error) of the scans over the frames of the test, ADU, rounding removed."""
    import numpy as np

    rows = [
        r
        for r in ctx.rows("check", "offsets", ccd)
        if r["quadrant"] == quadrant and r["region"] in ("pre", "ove") and r["noise"] is not None
    ]
    values = np.array([r["noise"] for r in rows if r["region"] == "pre"], float)
    if len(values) < 2:
        return None
    return float(np.median(values)), float(1.25 * np.std(values, ddof=1) / math.sqrt(len(values)))


def meta(ctx: runner.Context) -> None:
    """Fits of the twelve channels, gain of tiles, gain product."""
    channels = read_channels(ctx)
    rows, curve, coefficients, tiles = [], [], [], []
    for ccd in CCDS:
        for quadrant in QUADRANTS:
            keys = {"ccd": ccd, "quadrant": quadrant}
            channel = channels.get((ccd, quadrant))
            if channel is None:
                ctx.flag("BADDATAPROD", "no pair of flats", **keys)
                rows.append(
                    {
                        **keys,
                        **dict.fromkeys(_FIT.split(), math.nan),
                        "turn_off_is_limit": False,
                        "read_noise_is_limit": False,
                        "bloom_is_limit": False,
                        "n": 0,
                        "flag": "no pair",
                    }
                )
                continue
            row, fit, off = fit_channel(ctx, channel, overscan_noise(ctx, ccd, quadrant))
            rows.append({**keys, **row})
            if row["flag"]:
                ctx.flag("BADFIT", f"photon transfer curve: {row['flag']}", **keys)
            curve += [{**keys, **r} for r in curve_rows(channel, fit, off)]
            if fit.ok:
                coefficients += [{**keys, **r} for r in coefficient_rows(fit)]
                tiles += [{**keys, **r} for r in tile_rows(ctx, channel, fit, off)]
            print(
                f"{ctx.test} CCD{ccd} {quadrant}: gain {row['gain']:.4f} +- {row['gain_err']:.4f} e-/ADU",
                flush=True,
            )
    _write_ptc(ctx, rows)
    write_curve(ctx, curve)
    write_coefficients(ctx, coefficients)
    ctx.write_table(
        "ptc_tiles",
        table(tiles, "ccd quadrant tile_row tile_column gain gain_err turn_off turn_off_is_limit n"),
        units={**errs("gain", "electron/adu"), "turn_off": "ADU"},
        descriptions={"turn_off": "of the tile and its neighbours; the brightest level when is_limit"},
    )
    _write_gain(ctx, rows)


def fit_channel(ctx: runner.Context, channel: dict, noise):
    """(row of table ptc, fit, turn-off) of one channel."""
    import numpy as np

    from calcamp.analysis import ptc

    mu, c, err, moments = (channel[k] for k in ("mu", "covariance", "err", "moments"))
    expected = (noise[0] if noise else 1.3) * ctx.detector.nominal_gain
    tile_mu, tile_variance, tile_n = channel["tiles"]
    tile_err = tile_variance * np.sqrt(2 / np.maximum(tile_n, 1))
    off = ptc.find_turn_off(
        mu,
        c[:, 0, 0],
        err[:, 0, 0],
        channel["ks_p"],
        moments[:, 0],
        (tile_mu, tile_variance, tile_err),
        expected**2,
    )
    # A correction ends with its last level: what lies above is not linear.
    top = min(_top(off, ctx.options.get("max_level")), channel["linear_max"])
    with np.errstate(invalid="ignore"):
        brightest = np.where(np.isfinite(tile_mu), tile_mu, -np.inf).max(axis=1)
        below = (brightest < top) & np.isfinite(mu)
    nan = np.where(below[:, None, None], c, np.nan)
    choice = {"with_b": ctx.options.get("model_b"), "common": channel["common"]}
    free = ptc.fit_covariances(mu, nan, err, moments, **choice)
    fit = free
    if noise and free.ok and ctx.options.get("noise", "overscan") == "overscan":
        with_scans = ptc.fit_covariances(mu, nan, err, moments, read_noise=noise, **choice)
        fit = with_scans if with_scans.ok else free
    v, e = np.where(below, c[:, 0, 0], np.nan), err[:, 0, 0]
    sixteen = ptc.fit_variance(mu, v, e, moments[:, 0])
    quadratic = ptc.fit_quadratic(mu, v, e)
    # The old rule pools the tiles of all pairs.
    bloom, bloom_limit = ptc.bloom_threshold(tile_mu.reshape(-1), tile_variance.reshape(-1))
    total, total_err = fit.sum_a if fit.ok else (math.nan, math.nan)
    noise_of = free.read_noise if free.ok else (math.nan, math.nan, False)
    far = slice(5, None)
    pull = fit.a[far, far] / fit.a_err[far, far] if fit.ok else np.array([math.nan])
    row = {
        "gain": fit.gain,
        "gain_err": fit.gain_err,
        "gain_err_linearity": fit.gain_err_common,
        "gain_free_noise": free.gain,
        "gain_free_noise_err": free.gain_err,
        "gain_eq16": sixteen.gain,
        "gain_eq16_err": sixteen.gain_err,
        "gain_quadratic": quadratic.gain,
        "gain_quadratic_err": quadratic.gain_err,
        "alpha_quadratic": -quadratic.a00,
        "alpha_quadratic_err": quadratic.a00_err,
        "a00": fit.a[0, 0],
        "a00_err": fit.a_err[0, 0],
        "a01": fit.a[1, 0],
        "a01_err": fit.a_err[1, 0],
        "a10": fit.a[0, 1],
        "a10_err": fit.a_err[0, 1],
        "a11": fit.a[1, 1],
        "a11_err": fit.a_err[1, 1],
        "b00": fit.b[0, 0] if fit.b is not None else math.nan,
        "b00_err": fit.b_err[0, 0] if fit.b_err is not None else math.nan,
        "sum_a": total,
        "sum_a_err": total_err,
        "read_noise": noise_of[0],
        "read_noise_err": noise_of[1],
        "read_noise_is_limit": noise_of[2],
        "overscan_noise": noise[0] if noise else math.nan,
        "overscan_noise_err": noise[1] if noise else math.nan,
        "turn_off": off.level,
        "turn_off_err": off.err,
        "turn_off_is_limit": off.is_limit,
        "full_well": off.level * fit.gain,
        "full_well_err": math.hypot(0.0 if off.is_limit else off.err * fit.gain, off.level * fit.gain_err)
        if fit.ok
        else math.nan,
        "bloom_level_vison": bloom,
        "bloom_is_limit": bloom_limit,
        "far_lags_rms": float(np.sqrt(np.mean(pull**2))),
        "chi2_dof": fit.chi2 / fit.dof if fit.dof > 0 else math.nan,
        "chi2_variance": fit.chi2_variance,
        "b_improvement": fit.b_improvement,
        "top": top if math.isfinite(top) else math.nan,
        "n": fit.n,
        "n_rejected": fit.n_rejected,
        "flag": fit.reason,
    }
    return row, fit, off


def _top(off, given) -> float:
    """Signal above which no pair is fitted, ADU."""
    top = math.inf if off.is_limit or not math.isfinite(off.level) else off.level - 2 * (off.err or 0.0)
    return min(top, given) if given else top


_FIT = (
    "gain gain_err gain_err_linearity gain_free_noise gain_free_noise_err gain_eq16 gain_eq16_err gain_quadratic gain_quadratic_err "
    "alpha_quadratic alpha_quadratic_err a00 a00_err a01 a01_err a10 a10_err a11 a11_err b00 b00_err sum_a sum_a_err "
    "read_noise read_noise_err read_noise_is_limit overscan_noise overscan_noise_err turn_off turn_off_err turn_off_is_limit full_well "
    "full_well_err bloom_level_vison bloom_is_limit far_lags_rms chi2_dof chi2_variance b_improvement top n_rejected"
)


def _write_ptc(ctx: runner.Context, rows: list[dict]) -> None:
    """Table ``ptc``: the result of every channel."""
    e, inverse = "electron/adu", "1/electron"
    ctx.write_table(
        "ptc",
        table(rows, f"ccd quadrant {_FIT} n flag"),
        units={
            **errs("gain gain_free_noise gain_eq16 gain_quadratic", e),
            "gain_err_linearity": e,
            **errs("alpha_quadratic", "1/adu2"),
            **errs("a00 a01 a10 a11 b00 sum_a", inverse),
            **errs("read_noise overscan_noise turn_off", "ADU"),
            **errs("full_well", "electron"),
            "bloom_level_vison": "ADU",
            "top": "ADU",
        },
        descriptions={
            "gain": "Astier et al. 2019, Eq. 20; the noise of the scans is a measurement of n00 (option noise)",
            "gain_err_linearity": "part of gain_err that comes from the error of the linearity product",
            "gain_free_noise": "the same with the noise at zero signal left to the curve",
            "read_noise": "of the curve alone, at zero signal; a 95 % limit when is_limit",
            "gain_eq16": "Eq. 16 on the variance alone, statistical error",
            "gain_quadratic": "parabola, 1 to 40 kADU, the predecessor's model: biased, for comparison",
            "a01": "parallel neighbour",
            "a10": "serial neighbour",
            "b00": "only where the data ask for the coefficients b",
            "sum_a": "over all lags: 0 where charge is conserved",
            "turn_off": "signal from which the variance no longer follows; the highest good level when is_limit",
            "far_lags_rms": "rms of a/err at lags 5 and beyond: 1 without long-range structure",
            "chi2_dof": "of all lags",
            "chi2_variance": "of the variances",
            "b_improvement": "what coefficients b would take off chi2",
            "top": "signals above were not fitted",
        },
        meta={"gain_at": "25 % of FDR where a linearity product was used, else of the raw scale"},
    )


def curve_rows(channel: dict, fit, off) -> list[dict]:
    """Levels of the curve with the model beside them."""
    import numpy as np

    rows = []
    for column in np.unique(channel["column"]):
        here = (channel["column"] == column) & np.isfinite(channel["mu"])
        if not here.any():
            continue
        mu, m = channel["mu"][here], channel["moments"][here]
        c, err = (
            channel["covariance"][here].mean(axis=0),
            channel["err"][here].mean(axis=0) / math.sqrt(here.sum()),
        )
        model = np.full(c.shape, np.nan)
        if fit.ok:
            model = _model(fit, mu.mean(), m.mean(axis=0)[None, :], channel["common"], here)
        rows.append(
            {
                "column": int(column),
                "mu": float(mu.mean()),
                "variance": c[0, 0],
                "variance_err": err[0, 0],
                "variance_model": model[0, 0],
                "c_parallel": c[1, 0],
                "c_parallel_err": err[1, 0],
                "c_parallel_model": model[1, 0],
                "c_serial": c[0, 1],
                "c_serial_err": err[0, 1],
                "c_serial_model": model[0, 1],
                "c_diagonal": c[1, 1],
                "c_diagonal_err": err[1, 1],
                "c_diagonal_model": model[1, 1],
                "ks_p": float(np.median(channel["ks_p"][here])),
                "used": bool(fit.used[here].any()),
                "n": int(here.sum()),
            }
        )
    return rows


def _model(fit, mu: float, moments, common, here):
    """Covariances of a level as the fit expects to measure them, its errors of linearity included."""
    if common is None or not len(fit.common):
        return fit.model([mu], moments)[0]
    shift, stretch = (float(fit.common @ part[:, here].mean(axis=1)) for part in common)
    return fit.model([mu + shift], moments)[0] / (1.0 + stretch)


_CURVE = (
    "column mu variance variance_err variance_model c_parallel c_parallel_err c_parallel_model c_serial c_serial_err "
    "c_serial_model c_diagonal c_diagonal_err c_diagonal_model ks_p used n"
)


def write_curve(ctx: runner.Context, rows: list[dict]) -> None:
    """Table ``ptc_curve``: levels and model."""
    units = {"mu": "ADU", **errs("variance c_parallel c_serial c_diagonal", "ADU2")}
    units |= dict.fromkeys(
        (f"{n}_model" for n in ("variance", "c_parallel", "c_serial", "c_diagonal")), "ADU2"
    )
    ctx.write_table("ptc_curve", table(rows, f"ccd quadrant {_CURVE}"), units=units)


def coefficient_rows(fit) -> list[dict]:
    """a, b, n by lag."""
    lags = fit.a.shape[0]
    return [
        {
            "lag_parallel": i,
            "lag_serial": j,
            "a": fit.a[i, j],
            "a_err": fit.a_err[i, j],
            "b": fit.b[i, j] if fit.b is not None else math.nan,
            "b_err": fit.b_err[i, j] if fit.b_err is not None else math.nan,
            "noise": fit.noise[i, j],
            "noise_err": fit.noise_err[i, j],
        }
        for i in range(lags)
        for j in range(lags)
    ]


def write_coefficients(ctx: runner.Context, rows: list[dict]) -> None:
    """Table ``covariance_model``: coefficients by lag."""
    ctx.write_table(
        "covariance_model",
        table(rows, "ccd quadrant lag_parallel lag_serial a a_err b b_err noise noise_err"),
        units={**errs("a b", "1/electron"), **errs("noise", "electron2")},
    )


def tile_rows(ctx: runner.Context, channel: dict, fit, off) -> list[dict]:
    """Gain and turn-off of the tiles of a quadrant."""
    from calcamp.analysis.ptc import tile_gains, tile_turn_offs

    top = min(_top(off, ctx.options.get("max_level")), channel["linear_max"])
    gain, err, n = tile_gains(fit, *channel["tiles"], top)
    off, limit = tile_turn_offs(fit, *channel["tiles"], channel["column"], ctx.detector.tiles)
    across = ctx.detector.tiles[1]
    return [
        {
            "tile_row": k // across,
            "tile_column": k % across,
            "gain": gain[k],
            "gain_err": err[k],
            "turn_off": off[k],
            "turn_off_is_limit": bool(limit[k]),
            "n": int(n[k]),
        }
        for k in range(len(gain))
    ]


def _write_gain(ctx: runner.Context, rows: list[dict]) -> None:
    """Gain product of the block, FITS, and the predecessor's workbook beside it."""
    from calcamp import __version__
    from calcamp.campaign.core import find_test
    from calcamp.data.products import write_gain, write_gain_xlsx

    good = [row for row in rows if row["gain"] == row["gain"]]
    if not good:
        return
    nm = find_test(ctx.test.split(".")[0]).wavelength or 0
    folder = ctx.into / "products"
    folder.mkdir(exist_ok=True)
    header = {
        "BLOCKID": ctx.block,
        "CHAMBER": ctx.job.get("chamber", ""),
        "TEST": ctx.test,
        "WAVEL": nm,
        "CALCAMP": __version__,
        "OBSFIRST": ctx.exposures[0].obsid if ctx.exposures else -1,
        "OBSLAST": ctx.exposures[-1].obsid if ctx.exposures else -1,
        "LINEAR": bool(ctx.product("linearity")),
    }
    keep = (
        "ccd",
        "quadrant",
        "gain",
        "gain_err",
        "a00",
        "a00_err",
        "full_well",
        "full_well_err",
        "turn_off",
        "n",
    )
    name = f"EUC_GAIN_{nm}nm_{ctx.block}.fits"
    write_gain(folder / name, [{k: row[k] for k in keep} for row in good], header)
    ctx.made.append({"kind": "gain", "file": f"products/{name}", "ccd": None, "serial": "", "wavelength": nm})
    old = f"{ctx.test}_GAIN_TB.xlsx"
    twin = [
        {
            "ccd": row["ccd"],
            "quadrant": row["quadrant"],
            "gain": row["gain"],
            "gain_err": row["gain_err"],
            "alpha": -row["a00"],
            "fqual": 0,
            "bloom": row["bloom_level_vison"] * (-1 if row["bloom_is_limit"] else 1),
        }
        for row in good
    ]
    write_gain_xlsx(folder / old, twin, header)
    ctx.made.append({"kind": "gain_table", "file": f"products/{old}", "ccd": None, "serial": ""})


# ---- hard edge ----------------------------------------------------------------------------------------
def extract_her(ctx: runner.Context, subtask: str = "extract_PTC") -> None:
    """Table ``her``: response behind the edges, electronics and deferred charge apart."""
    import numpy as np

    from calcamp.analysis.her import fit_response

    rows, pixels = [], []
    for ccd in CCDS:
        profiles = ctx.rows(subtask, "edge_profiles", ccd)
        for quadrant in QUADRANTS:
            for edge in EDGES:
                own = [r for r in profiles if r["quadrant"] == quadrant and r["edge"] == edge]
                columns = sorted({r["column"] for r in own})
                keys = {"ccd": ccd, "quadrant": quadrant, "edge": edge}
                if not columns:
                    rows.append({**keys, **dict.fromkeys(_HER.split(), math.nan), "n": 0, "flag": "no frame"})
                    continue
                signal, response, err = [], [], []
                for column in columns:
                    part = sorted((r for r in own if r["column"] == column), key=lambda r: r["pixel"])
                    if part[0]["signal"] is None or part[0]["signal"] > 0.75 * 65536:
                        continue  # near the full well charge arrives late for other reasons
                    signal.append(part[0]["signal"])
                    response.append([_nan(r["response"]) for r in part])
                    err.append([_nan(r["response_err"]) for r in part])
                if not signal:
                    rows.append(
                        {
                            **keys,
                            **dict.fromkeys(_HER.split(), math.nan),
                            "n": 0,
                            "flag": "all levels near full well",
                        }
                    )
                    continue
                found = fit_response(np.array(signal), np.array(response), np.array(err))
                rows.append(
                    {
                        **keys,
                        "her": found.her,
                        "her_err": found.her_err,
                        "linear": found.linear[0],
                        "linear_err": found.linear_err[0],
                        "deferred": found.deferred[0],
                        "deferred_err": found.deferred_err[0],
                        "deferred_scale": found.scale,
                        "significance": found.significance,
                        "chi2_dof": found.chi2_dof,
                        "n": found.n,
                        "flag": found.flag,
                    }
                )
                pixels += [
                    {**keys, "pixel": k + 1, "linear": found.linear[k], "linear_err": found.linear_err[k],
                     "deferred": found.deferred[k], "deferred_err": found.deferred_err[k]}
                    for k in range(len(found.linear))
                ]  # fmt: skip
    ctx.write_table(
        "her",
        table(rows, f"ccd quadrant edge {_HER} n flag"),
        units={**errs("deferred", "ADU"), "deferred_scale": "ADU"},
        descriptions={
            "her": "first overscan pixel over the step, at a step of half FDR",
            "linear": "part in proportion to the step: the electronics",
            "deferred": "part that saturates: charge that comes late; 0 where it is below 5 sigma",
            "significance": "of the deferred part, sigma",
        },
    )
    ctx.write_table(
        "her_pixels",
        table(pixels, "ccd quadrant edge pixel linear linear_err deferred deferred_err"),
        units=errs("deferred", "ADU"),
    )


_HER = "her her_err linear linear_err deferred deferred_err deferred_scale significance chi2_dof"


def _nan(value) -> float:
    return math.nan if value is None else value


if __name__ == "__main__":
    sys.exit(runner.run("ptc", {"extract_PTC": extract, "meta": meta, "extract_HER": extract_her}))
