"""A made-up results folder of a test: manifest, verdict, tables and products as the contract has them.

Run as a script to look at a report: ``python tests/report/report_fixtures.py FOLDER [BIAS01|DARK01] [--full]``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from calcamp.detector.geometry import QUADRANTS, Detector

MINI = Detector("ccd273-mini", image_columns=512, image_rows=516)
CCDS = (1, 2, 3)
FIRST = 17283

HK_KEYS = (
    [f"CCD{c}_TEMP_{s}" for c in CCDS for s in "TB"]
    + [f"CCD{c}_OD_{s}" for c in CCDS for s in "TB"]
    + ["COMM_RD_T", "COMM_RD_B"]
    + [f"CCD{c}_IG1_{s}" for c in CCDS for s in "TB"]
    + ["COMM_IG2_T", "COMM_IG2_B", "FPGA_BIAS_ID2"]
    + ["VID_PCB_TEMP_T", "VID_PCB_TEMP_B", "FPGA_PCB_TEMP_T", "FPGA_PCB_TEMP_B", "RPSU_TEMP1", "RPSU_TEMP_2"]
    + ["FPGA_VCCD_V", "RPSU_VCCD_V", "RPSU_28V_PRI_I"]
)


def ecsv(path: Path, columns: dict, units: dict | None = None) -> None:
    """Plain ECSV, as the data room writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# %ECSV 1.0", "# ---", "# datatype:"]
    arrays = {}
    for name, values in columns.items():
        array = np.asarray(values)
        kind = {"f": "float64", "i": "int64", "b": "bool"}.get(array.dtype.kind, "string")
        unit = f"unit: {json.dumps(units[name])}, " if units and units.get(name) else ""
        lines.append(f"# - {{name: {name}, {unit}datatype: {kind}}}")
        arrays[name] = [_cell(v) for v in array.tolist()]
    lines += ["# schema: astropy-2.0", " ".join(columns)]
    lines += [" ".join(row) for row in zip(*arrays.values(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(value) -> str:
    if isinstance(value, str):
        plain = value and not any(c in value for c in " \"'\n\t#")
        return value if plain else '"' + value.replace('"', '""').replace("\n", " ") + '"'
    return repr(value)


def channels():
    return [(c, q) for c in CCDS for q in QUADRANTS]


def manifest(test: str, n: int, exptime: float, **changes) -> dict:
    exposures = []
    for k in range(n):
        seconds = 60 * 10 + int(k * (91 + exptime))
        stamp = f"210220D{10 + seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}T"
        files = {
            str(c): {
                "name": f"EUC_{FIRST + k}_{stamp}_ROE1_CCD{c}.fits",
                "size": 35363520,
                "sha256": "ab" * 32,
            }
            for c in CCDS
        }
        exposures.append(
            {
                "obsid": FIRST + k,
                "column": 1,
                "frame": k + 1,
                "day_folder": "/somewhere/data/20_Feb_21",
                "log_row": {
                    "date": stamp,
                    "exptime": exptime,
                    "rdmode": "fwd_bas",
                    "chinj": 0,
                    "v_tpump": 0,
                    "s_tpump": 0,
                    "source": "flat",
                    "wave": 4,
                },
                "hk": f"HK_{FIRST + k}_{stamp}_ROE1.txt",
                "files": files,
            }
        )
    base = {
        "schema": 1,
        "test": test,
        "status": "complete",
        "reason": "",
        "obsids": [FIRST, FIRST + n - 1],
        "exposures": exposures,
    }
    return {**base, "missing": [], "unexpected": [], "mismatches": [], **changes}


def level(ccd: int, quadrant: str) -> float:
    return 2500.0 + 130 * ccd + 37 * QUADRANTS.index(quadrant)


def verdict(test: str, n: int, failing: bool = True) -> dict:
    rng = np.random.default_rng(3)
    cells = []
    for c, q in channels():
        for region in ("pre", "img", "ove"):
            low, high = level(c, q) - 50, level(c, q) + 50
            bad = failing and (c, q, region) == (2, "E", "img")
            value = level(c, q) + (61.3 if bad else 3 * rng.standard_normal())
            cells.append(
                {
                    "check": "offset",
                    "ccd": c,
                    "quadrant": q,
                    "region": region,
                    "ok": not bad,
                    "value": value,
                    "low": low,
                    "high": high,
                    "obsids": [FIRST + 3, FIRST + 4] if bad else [],
                    "unit": "adu",
                }
            )
            cells.append(
                {
                    "check": "read_noise",
                    "ccd": c,
                    "quadrant": q,
                    "region": region,
                    "ok": True,
                    "value": 1.2 + 0.02 * rng.standard_normal(),
                    "low": 0.86,
                    "high": 1.44,
                    "obsids": [],
                    "unit": "adu",
                }
            )
        cells.append(
            {
                "check": "offset_gradient",
                "ccd": c,
                "quadrant": q,
                "region": "ove",
                "ok": None if (c, q) == (3, "G") else True,
                "value": None if (c, q) == (3, "G") else rng.normal(0, 2),
                "low": -10,
                "high": 10,
                "obsids": [],
            }
        )
    for c in CCDS:
        cells.append(
            {
                "check": "saturated_fraction",
                "ccd": c,
                "column": 1,
                "ok": True,
                "value": 1.2e-6,
                "low": 0,
                "high": 0.1,
                "obsids": [],
            }
        )
    cells.append({"check": "lost_pixels", "ok": True, "value": 0, "low": 0, "high": 0, "obsids": []})
    for key in HK_KEYS:
        low, high = _safe(key)
        cells.append(
            {
                "check": "hk_safe",
                "key": key,
                "ok": True,
                "value": (low + high) / 2,
                "low": low,
                "high": high,
                "obsids": [],
            }
        )
        if "TEMP" in key and key.startswith("CCD"):
            bad = failing and key == "CCD2_TEMP_T"
            cells.append(
                {
                    "check": "hk_performance",
                    "key": key,
                    "ok": not bad,
                    "value": -118.4 if bad else -120.0,
                    "low": -121,
                    "high": -119,
                    "obsids": [FIRST + k for k in range(3, 10)] if bad else [],
                }
            )
        if "IG1" in key or "OD" in key:
            cells.append(
                {
                    "check": "hk_command",
                    "key": key,
                    "ok": True,
                    "value": 0.05,
                    "low": -0.2,
                    "high": 0.2,
                    "obsids": [],
                }
            )
    headline = []
    for c, q in channels():
        headline.append(
            {
                "quantity": "read_noise",
                "ccd": c,
                "quadrant": q,
                "region": "img",
                "value": 1.2 + 0.02 * rng.standard_normal(),
                "err": 2e-4,
                "unit": "adu",
                "n": 9,
            }
        )
        headline.append(
            {
                "quantity": "offset",
                "ccd": c,
                "quadrant": q,
                "region": "img",
                "value": level(c, q),
                "err": 0.0031,
                "unit": "adu",
                "n": 10,
            }
        )
        if test == "DARK01":
            headline.append(
                {
                    "quantity": "dark_current",
                    "ccd": c,
                    "quadrant": q,
                    "value": 2.2 + 0.3 * rng.standard_normal(),
                    "err": 0.11,
                    "unit": "electron / (h pix)",
                    "n": 4,
                }
            )
    headline.append({"quantity": "bad_pixels", "ccd": 1, "value": 12, "err": None, "unit": "", "n": 1})
    flags = []
    if failing:
        flags = [
            {
                "name": "HK_OOL",
                "cause": "CCD2_TEMP_T reached -118.4 °C, limits -121 to -119",
                "scope": {"obsids": [FIRST + 3, FIRST + 9], "key": "CCD2_TEMP_T"},
            },
            {
                "name": "POORQUALDATA",
                "cause": "offset of the image 61.3 ADU above the block's value, limit 50",
                "scope": {"ccd": 2, "quadrant": "E", "obsids": [FIRST + 3, FIRST + 4]},
            },
        ]
    prep = {
        "offset": "smooth",
        "scan": "pre",
        "use_mask": True,
        "use_bias": True,
        "use_flat": True,
        "cosmics": False,
    }
    return {
        "schema": 1, "calcamp_version": "0.1.0", "block": "NOSTROMO", "session": "D11", "test": test, "chamber": "A_JUN18", "elvis": "7.5.X",
        "serials": {"roe": "FM10", "rpsu": "FM07", "ccd1": "14313-17-03", "ccd2": "14471-19-01", "ccd3": "15081-13-02"},
        "script": f"vis_CalCamp_{test}_01Apr19_v7.5.X.xlsx", "obsids": [FIRST, FIRST + n - 1], "day_folders": ["20_Feb_21"],
        "frames": {"declared": n, "found": n, "used": n - 1 if failing else n}, "started": "2021-02-20T10:42:11Z", "ended": "2021-02-20T10:43:05Z",
        "options": {"check": {}, "prep": prep, "basic": {"clip_sigma": 5.0, "model_degree": 3, "spectrum": True}, "meta": {"clip_sigma": 3.0, "clip_iterations": 3}},
        "report": f"{test}_report.pdf", "status": "complete", "verdict": "fail" if failing else "pass",
        "subtasks": {"hk": {"status": "complete", "minutes": 0.02}, "check": {"status": "complete", "minutes": 0.11}, "basic": {"status": "complete", "minutes": 0.25}, "meta": {"status": "complete", "minutes": 0.2}},
        "flags": flags, "compliance": cells, "headline": headline,
        "excluded": [{"obsid": FIRST + 3, "ccd": 2, "quadrant": "E", "cause": "offset jumped by 61 ADU", "by": "rule"}] if failing else [],
        "limits": {"name": "default", "version": "2026.1", "checksum": "9c" * 32},
        "inputs": {f"raw/EUC_{FIRST + k}_CCD{c}.fits": f"{k:02x}{c:02x}" * 16 for k in range(n) for c in CCDS},
    }  # fmt: skip


def _safe(key: str) -> tuple[float, float]:
    if key.startswith("CCD") and "TEMP" in key:
        return -133, 35
    if "TEMP" in key:
        return -10, 40
    return {"FPGA_VCCD_V": (29.5, 30.5), "RPSU_VCCD_V": (31.6, 36), "RPSU_28V_PRI_I": (0.35, 0.5)}.get(
        key, (-20, 30)
    )


def check_tables(folder: Path, n: int, rng) -> None:
    rows = []
    for key in HK_KEYS:
        middle = {"TEMP": -120 if key.startswith("CCD") else 21}.get(
            "TEMP" if "TEMP" in key else "",
            0.42
            if key.endswith("_I")
            else 30.0
            if "VCCD" in key
            else 26
            if "OD" in key
            else 16
            if "RD" in key
            else 5,
        )
        for k in range(n):
            drift = 0.25 * max(0, k - 2) if key == "CCD2_TEMP_T" else 0
            mean = middle + drift + 0.02 * rng.standard_normal()
            rows.append(
                (
                    FIRST + k,
                    key,
                    middle if "OD" in key or "IG" in key else np.nan,
                    mean,
                    0.01,
                    mean - 0.02,
                    mean + 0.02,
                    12,
                    "",
                )
            )
    ecsv(
        folder / "hk.ecsv",
        dict(
            zip(
                ("obsid", "key", "commanded", "mean", "std", "min", "max", "n", "flag"),
                map(list, zip(*rows, strict=True)),
                strict=True,
            )
        ),
    )
    frames, offsets, selection = [], [], []
    for k in range(n):
        for c, q in channels():
            jump = 61 if (c, q) == (2, "E") and k in (3, 4) else 0
            frames.append(
                (
                    FIRST + k,
                    1,
                    k + 1,
                    c,
                    q,
                    0,
                    3 if c == 1 else 0,
                    3 / 4e6 if c == 1 else 0.0,
                    level(c, q),
                    0.001,
                    0.1,
                    -0.2,
                    "",
                    "",
                )
            )
            selection.append((FIRST + k, c, q, not jump, "offset jumped" if jump else ""))
            for region, delta in (("pre", 0.0), ("img", 1.3), ("ove", 0.6), ("pov", 1.1)):
                offset = level(c, q) + delta + 0.15 * k + 0.05 * rng.standard_normal() + jump
                offsets.append(
                    (
                        FIRST + k,
                        1,
                        k + 1,
                        c,
                        q,
                        region,
                        offset,
                        0.008,
                        round(offset),
                        jump + 0.15 * (k - n / 2) + 0.03 * rng.standard_normal(),
                        1.2 + 0.006 * rng.standard_normal(),
                        0.003 if region != "img" else 0.0005,
                        1.234,
                        21000,
                        1e-4,
                        "",
                    )
                )
    names = ("obsid", "column", "frame", "ccd", "quadrant")
    frame_names = (
        *names,
        "lost",
        "saturated",
        "saturated_fraction",
        "level_image",
        "level_image_err",
        "row_slope",
        "column_slope",
        "bits_stuck",
        "flag",
    )
    ecsv(folder / "frames.ecsv", dict(zip(frame_names, map(list, zip(*frames, strict=True)), strict=True)))
    offset_names = (
        *names,
        "region",
        "offset",
        "offset_err",
        "offset_vison",
        "delta",
        "noise",
        "noise_err",
        "noise_vison",
        "n",
        "clipped",
        "flag",
    )
    ecsv(
        folder / "offsets.ecsv",
        dict(zip(offset_names, map(list, zip(*offsets, strict=True)), strict=True)),
        {"offset": "adu", "noise": "adu"},
    )
    ecsv(
        folder / "selection.ecsv",
        dict(
            zip(
                ("obsid", "ccd", "quadrant", "use", "cause"),
                map(list, zip(*selection, strict=True)),
                strict=True,
            )
        ),
    )


def profile_table(folder: Path, rng, detector: Detector, scale: float) -> None:
    parts: dict[str, list] = {k: [] for k in ("ccd", "quadrant", "axis", "position", "value", "value_err")}
    for c, q in channels():
        for axis, n in (("column", detector.columns), ("row", detector.rows)):
            x = np.arange(n)
            parts["ccd"] += [c] * n
            parts["quadrant"] += [q] * n
            parts["axis"] += [axis] * n
            parts["position"] += x.tolist()
            parts["value"] += (
                (scale * np.exp(-x / 40) + 0.05 * np.sin(x / 90 + c) + 0.03 * rng.standard_normal(n))
                .round(5)
                .tolist()
            )
            parts["value_err"] += [0.012] * n
    ecsv(folder / "profiles.ecsv", parts, {"value": "adu", "value_err": "adu"})


def bias_tables(folder: Path, n: int, rng, detector: Detector) -> None:
    noise = []
    for c, q in channels():
        for region, method in (("img", "pairs"), ("pre", "pairs"), ("ove", "pairs"), ("ove", "overscan")):
            err = 1.5e-4 if region == "img" else 2.5e-3
            white = 1.18 + 0.02 * rng.standard_normal()
            row = (
                c,
                q,
                region,
                method,
                np.hypot(white, 0.2),
                err,
                white,
                err,
                0.2,
                0.01,
                0.05,
                0.01,
                0.08,
                0.02,
                np.sqrt(white**2 + 0.05),
                err,
                9,
                "",
            )
            noise.append(row)
    names = (
        "ccd",
        "quadrant",
        "region",
        "method",
        "read_noise",
        "read_noise_err",
        "white",
        "white_err",
        "row_noise",
        "row_noise_err",
        "column_pattern",
        "column_pattern_err",
        "drift",
        "drift_err",
        "total",
        "total_err",
        "n",
        "flag",
    )
    ecsv(
        folder / "read_noise.ecsv",
        dict(zip(names, map(list, zip(*noise, strict=True)), strict=True)),
        {"read_noise": "adu"},
    )
    rows = []
    for k in range(n):
        for c, q in channels():
            rows.append(
                (
                    FIRST + k,
                    1,
                    k + 1,
                    c,
                    q,
                    level(c, q) + 0.15 * k,
                    0.003,
                    0.12 + 0.01 * rng.standard_normal(),
                    0.01,
                    -0.05 + 0.01 * rng.standard_normal(),
                    0.01,
                    "",
                )
            )
    names = (
        "obsid",
        "column",
        "frame",
        "ccd",
        "quadrant",
        "offset",
        "offset_err",
        "gradient_rows",
        "gradient_rows_err",
        "gradient_columns",
        "gradient_columns_err",
        "flag",
    )
    ecsv(
        folder / "offset_frames.ecsv",
        dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)),
        {"offset": "adu", "gradient_rows": "adu", "gradient_columns": "adu"},
    )
    profile_table(folder, rng, detector, 2.0)
    spectrum: dict[str, list] = {k: [] for k in ("ccd", "quadrant", "frequency", "power", "component")}
    peaks: dict[str, list] = {k: [] for k in ("ccd", "quadrant", "frequency", "power", "significance")}
    frequency = np.geomspace(1, 35000, 1500)
    for c, q in channels():
        power = 4e-5 * (1 + 50 / frequency) * rng.gamma(8, 1 / 8, len(frequency))
        power[1100 + 20 * c] *= 30
        spectrum["component"] += ["rows"] * 600 + ["pixels"] * (len(frequency) - 600)
        spectrum["ccd"] += [c] * len(frequency)
        spectrum["quadrant"] += [q] * len(frequency)
        spectrum["frequency"] += frequency.round(3).tolist()
        spectrum["power"] += power.tolist()
        for key, value in zip(
            peaks,
            (c, q, float(frequency[1100 + 20 * c].round(2)), float(power[1100 + 20 * c]), 21.3),
            strict=True,
        ):
            peaks[key].append(value)
    ecsv(folder / "spectrum.ecsv", spectrum, {"frequency": "Hz", "power": "adu2 / Hz"})
    ecsv(folder / "spectrum_peaks.ecsv", peaks, {"frequency": "Hz", "power": "adu2 / Hz"})
    settling = [
        (c, q, "line", 3.2 + 0.1 * rng.standard_normal(), 0.1, 2.1, 0.05, 4.5, "") for c, q in channels()
    ]
    ecsv(
        folder / "settling.ecsv",
        dict(
            zip(
                (
                    "ccd",
                    "quadrant",
                    "start",
                    "length",
                    "length_err",
                    "amplitude",
                    "amplitude_err",
                    "chi2",
                    "flag",
                ),
                map(list, zip(*settling, strict=True)),
                strict=True,
            )
        ),
        {"length": "pix", "amplitude": "adu"},
    )
    rows = [(c, q, n, 0.21, 0.002, 0.11, 0.12, 0.13) for c, q in channels()]
    ecsv(
        folder / "master_bias.ecsv",
        dict(
            zip(
                (
                    "ccd",
                    "quadrant",
                    "frames",
                    "fixed_pattern",
                    "fixed_pattern_err",
                    "row_pattern",
                    "column_pattern",
                    "residual_pattern",
                ),
                map(list, zip(*rows, strict=True)),
                strict=True,
            )
        ),
        {"fixed_pattern": "adu"},
    )


def dark_tables(folder: Path, n: int, rng, detector: Detector, hot: int) -> None:
    rows, per, tiles, histogram, pixels = [], [], [], [], []
    for c, q in channels():
        limit = (c, q) == (3, "H")
        value = 0.05 if limit else 2.2 + 0.2 * rng.standard_normal()
        rows.append(
            (
                c,
                q,
                value,
                0.11,
                0.24 if limit else value + 0.2,
                limit,
                0.05,
                0.9,
                0.05,
                0.1,
                0.005,
                12,
                1,
                310,
                1.1,
                1.6,
                9.0,
                4,
                "",
            )
        )
        for k in range(n):
            per.append((FIRST + k, c, q, value + 0.2 * rng.standard_normal(), 0.22))
        for r in range(8):
            tiles += [(c, q, r, t, value + 0.05 * r + 0.1 * rng.standard_normal(), 0.4) for t in range(8)]
        x = np.linspace(-2, 10, 121)
        counts = np.round(4e5 * np.exp(-0.5 * (x / 0.6) ** 2) + 200 * np.exp(-np.clip(x, 0, None)))
        histogram += [(c, q, float(v), int(m)) for v, m in zip(x, counts, strict=True)]
        for _ in range(hot // 12):
            rate = float(rng.pareto(1.5) * 0.1 + 0.05)
            pixels.append(
                (
                    c,
                    q,
                    int(rng.integers(detector.image_rows)),
                    int(rng.integers(detector.image_columns)),
                    rate * 160,
                    3.0,
                    rate,
                    0.02,
                    bool(rng.random() > 0.1),
                )
            )
    names = (
        "ccd",
        "quadrant",
        "dark_current",
        "dark_current_err",
        "dark_current_limit95",
        "is_limit",
        "systematic",
        "dsnu",
        "dsnu_err",
        "signal_adu",
        "signal_adu_err",
        "n_hot",
        "n_hot_columns",
        "cosmics",
        "p95",
        "p99",
        "p99.9",
        "n",
        "flag",
    )
    ecsv(
        folder / "dark.ecsv",
        dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)),
        {"dark_current": "electron / (h pix)"},
    )
    ecsv(
        folder / "dark_exposures.ecsv",
        dict(
            zip(
                ("obsid", "ccd", "quadrant", "dark_current", "dark_current_err"),
                map(list, zip(*per, strict=True)),
                strict=True,
            )
        ),
        {"dark_current": "electron / (h pix)"},
    )
    ecsv(
        folder / "dark_tiles.ecsv",
        dict(
            zip(
                ("ccd", "quadrant", "tile_row", "tile_column", "dark_current", "dark_current_err"),
                map(list, zip(*tiles, strict=True)),
                strict=True,
            )
        ),
        {"dark_current": "electron / (h pix)"},
    )
    ecsv(
        folder / "dark_histogram.ecsv",
        dict(
            zip(("ccd", "quadrant", "value", "count"), map(list, zip(*histogram, strict=True)), strict=True)
        ),
        {"value": "adu"},
    )
    if pixels:
        ecsv(
            folder / "hot_pixels.ecsv",
            dict(
                zip(
                    (
                        "ccd",
                        "quadrant",
                        "row",
                        "column",
                        "rate_adu",
                        "rate_adu_err",
                        "rate_e",
                        "rate_e_err",
                        "repeatable",
                    ),
                    map(list, zip(*pixels, strict=True)),
                    strict=True,
                )
            ),
            {"rate_adu": "adu / h", "rate_e": "electron / s"},
        )
    profile_table(folder, rng, detector, 0.5)


def products(folder: Path, test: str, detector: Detector, rng) -> None:
    from astropy.io import fits

    folder.mkdir(parents=True, exist_ok=True)
    prefix, extname = ("EUC_MASTERBIAS", "STACK") if test.startswith("BIAS") else ("EUC_DARK", "DARK")
    for c in CCDS:
        image = 0.3 * rng.standard_normal(detector.ccd_shape, dtype=np.float32)
        image += np.sin(np.arange(detector.ccd_shape[1]) / 300 + c).astype(np.float32)[None, :] * 0.4
        image += (0.0002 * np.arange(detector.ccd_shape[0]))[:, None].astype(np.float32)
        image[10:14, 20:30] = np.nan
        hdus = [
            fits.PrimaryHDU(),
            fits.ImageHDU(image, name=extname),
            fits.ImageHDU(np.ones((4, 4), np.uint32), name="DQ"),
        ]
        fits.HDUList(hdus).writeto(folder / f"{prefix}_CCD{c}_SN_14471-19-01_NOSTROMO.fits", overwrite=True)


def make_test(
    root: Path,
    test: str = "BIAS01",
    detector: Detector = MINI,
    failing: bool = True,
    tables: bool = True,
    images: bool = True,
    hot: int = 240,
) -> Path:
    """A whole results folder ``root/test``; returns it."""
    rng = np.random.default_rng(1)
    folder = Path(root) / test
    folder.mkdir(parents=True, exist_ok=True)
    n, exptime = (10, 0.0) if test.startswith("BIAS") else (4, 565.0)
    described = {"detector": detector.as_dict()}
    (folder / "manifest.json").write_text(json.dumps(manifest(test, n, exptime)))
    (folder / "verdict.json").write_text(json.dumps({**verdict(test, n, failing), **described}))
    if tables:
        check_tables(folder / "tables", n, rng)
        if test.startswith("BIAS"):
            bias_tables(folder / "tables", n, rng, detector)
        else:
            dark_tables(folder / "tables", n, rng, detector, hot)
    if images:
        products(folder / "products", test, detector, rng)
    return folder


if __name__ == "__main__":
    import sys

    from calcamp.report.build import build_report

    where = make_test(
        Path(sys.argv[1]),
        sys.argv[2] if len(sys.argv) > 2 else "BIAS01",
        Detector("ccd273") if "--full" in sys.argv else MINI,
    )
    print(build_report(where))


def too_wide(html_file: Path) -> list[str]:
    """What stands out of its table cell or of the page once WeasyPrint has laid it out: beginning of its text."""
    from calcamp.report.pdf import lay_out

    def text_of(box) -> str:
        return getattr(box, "text", "") + "".join(text_of(child) for child in getattr(box, "children", ()))

    found = []
    for page in lay_out(html_file.read_text(), html_file.parent).pages:
        stack = [(page._page_box, page._page_box.content_box_x() + page._page_box.width)]
        while stack:
            box, right = stack.pop()
            kind, width = type(box).__name__, getattr(box, "width", 0)
            if kind in ("TableBox", "TextBox") and box.position_x + width > right + 1:
                found.append(text_of(box)[:80])
            if kind == "TableCellBox":
                right = min(right, box.position_x + box.margin_width())
            stack += ((child, right) for child in getattr(box, "children", ()))
    return found
