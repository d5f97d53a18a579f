"""Small hand-made tables of a good test, and the plan's words about it."""

import copy
import json
from types import SimpleNamespace

import pytest

from calcamp.config.lookup import load_limits
from calcamp.quality.judge import judge

OFFSETS = {str(ccd): {q: 2500.0 + 100 * ccd + 10 * i for i, q in enumerate("EFGH")} for ccd in (1, 2, 3)}
CHANNELS = [(ccd, q) for ccd in (1, 2, 3) for q in "EFGH"]
LOGGED = {
    "test": "BIAS01",
    "date": "120319D071040T",
    "calscrpt": "vis_CalCamp_BIAS01_12Mar19_v7.5.X.xlsx",
    "IDL": 13.0,
    "IDH": 18.0,
    **{f"IG1_{n}_{h}": 6.0 for n in (1, 2, 3) for h in "TB"},
    **{f"IG2_{h}": 2.0 for h in "TB"},
    **{f"RD_{h}": 16.0 for h in "TB"},
    **{f"OD_{n}_{h}": 26.0 for n in (1, 2, 3) for h in "TB"},
}


def good_reading(key, limit):
    if limit.performance and limit.performance.type == "relative":
        return LOGGED[limit.commanded]
    band = limit.performance or limit.safe
    return (band.low + band.high) / 2


def plan(test="BIAS01", family="bias", **more):
    """`judging` as it comes out of a plan file."""
    limits = load_limits("default")
    data = {
        "test": test,
        "name": test,
        "family": family,
        "session": "D11",
        "block": "NOSTROMO",
        "chamber": "B_NOSTROMO",
        "elvis": "7.5.X",
        "serials": {"ccd1": "14471-19-01"},
        "offsets": OFFSETS,
        "subtasks": ["hk", "check", "basic", "meta"] if family == "bias" else ["hk", "check", "meta"],
        "options": {"basic": {"clip_sigma": 5.0}},
        "excluded": [],
        "limits": {k: v.as_dict() for k, v in limits.resolve(test, rdmode="fwd_bas").items()},
        "hk_limits": {k: v.as_dict() for k, v in limits.hk_limits(test).items()},
        "limits_name": limits.limits,
        "limits_version": limits.version,
        "limits_checksum": limits.checksum(),
        "detector": {"nominal_gain": 3.5},
        **more,
    }
    return json.loads(json.dumps(data))


def manifest(test="BIAS01", frames=10, first=17283):
    exposures = [
        {
            "obsid": first + n,
            "column": 1,
            "frame": n + 1,
            "day_folder": "/data/12_Mar_19",
            "log_row": {**LOGGED, "test": test},
            "hk": f"HK_{first + n}.txt",
            "files": {
                str(c): {"name": f"EUC_{first + n}_CCD{c}.fits", "size": 1, "sha256": f"{first + n}{c}"}
                for c in (1, 2, 3)
            },
        }
        for n in range(frames)
    ]
    return {
        "schema": 1,
        "test": test,
        "status": "complete",
        "reason": "",
        "declared": frames,
        "exposures": exposures,
        "missing": [],
        "unexpected": [],
        "mismatches": [],
        "messages": [],
    }


def records(subtasks):
    out = []
    for name in subtasks:
        for ccd in (None,) if name == "hk" else (1, 2, 3):
            out.append(
                {
                    "subtask": name,
                    "ccd": ccd,
                    "status": "done",
                    "reason": "",
                    "minutes": 0.5,
                    "flags": [],
                    "excluded": [],
                }
            )
    return out


def common_tables(listed, judged):
    hk, frames, offsets, selection = [], [], [], []
    limits = load_limits("default").hk_limits(judged["test"])
    for e in listed["exposures"]:
        key = {"obsid": e["obsid"], "column": 1, "frame": e["frame"]}
        for name, limit in limits.items():
            if limit.in_tests:
                v = good_reading(name, limit)
                commanded = LOGGED.get(limit.commanded) if limit.commanded else None
                hk.append(
                    {
                        "obsid": e["obsid"],
                        "key": name,
                        "commanded": commanded,
                        "mean": v,
                        "std": 0.0,
                        "min": v,
                        "max": v,
                        "n": 71,
                        "flag": "",
                    }
                )
        for ccd, q in CHANNELS:
            frames.append(
                {
                    **key,
                    "ccd": ccd,
                    "quadrant": q,
                    "lost": 0,
                    "saturated": 0,
                    "saturated_fraction": 0.0,
                    "level_image": 0.1,
                    "flag": "",
                }
            )
            selection.append({"obsid": e["obsid"], "ccd": ccd, "quadrant": q, "use": True, "cause": ""})
            for i, region in enumerate(("pre", "img", "ove", "pov")):
                level = OFFSETS[str(ccd)][q] + 3 + 0.2 * i
                offsets.append(
                    {
                        **key,
                        "ccd": ccd,
                        "quadrant": q,
                        "region": region,
                        "offset": level,
                        "offset_err": 0.01,
                        "noise": 1.2,
                        "noise_err": 0.01,
                        "noise_vison": 1.23,
                        "n": 1000,
                        "flag": "",
                    }
                )
    return {"hk": hk, "frames": frames, "offsets": offsets, "selection": selection}


def case(family):
    test, frames = {"bias": ("BIAS01", 10), "dark": ("DARK01", 4)}[family]
    judged, listed = plan(test, family), manifest(test, frames)
    tables = common_tables(listed, judged)
    if family == "bias":
        tables["read_noise"] = [
            {"ccd": c, "quadrant": q, "region": r, "method": "pairs", "read_noise": 1.2, "read_noise_err": 0.001, "white": 1.19, "white_err": 0.001,
             "row_noise": 0.1, "row_noise_err": 0.01, "column_pattern": 0.05, "column_pattern_err": 0.01, "drift": 0.02, "drift_err": 0.01,
             "total": 1.21, "total_err": 0.001, "n": 9, "flag": ""}
            for c, q in CHANNELS for r in ("pre", "img", "ove")
        ]  # fmt: skip
        tables["master_bias"] = [
            {"ccd": c, "quadrant": q, "frames": 10, "fixed_pattern": 0.2, "fixed_pattern_err": 0.01}
            for c, q in CHANNELS
        ]
    else:
        tables["dark_exposures"] = [
            {"obsid": e["obsid"], "column": 1, "frame": e["frame"], "ccd": c, "quadrant": q, "signal_adu": 0.2, "signal_adu_err": 0.01}
            for e in listed["exposures"] for c, q in CHANNELS
        ]  # fmt: skip
        tables["dark"] = [
            {"ccd": c, "quadrant": q, "dark_current": 4.0, "dark_current_err": 0.1, "dark_current_limit95": 4.2, "is_limit": False, "systematic": 0.05,
             "dsnu": 1.0, "dsnu_err": 0.1, "signal_adu": 0.2, "signal_adu_err": 0.01, "signal_scatter": 0.02, "n_hot": 0, "n_hot_columns": 0, "n": 4}
            for c, q in CHANNELS
        ]  # fmt: skip
    kind = {"bias": "bias", "dark": "dark"}[family]
    made = [{"kind": kind, "file": f"products/EUC_CCD{c}.fits", "ccd": c} for c in (1, 2, 3)]
    state = SimpleNamespace(
        judging=judged, manifest=listed, tables=tables, records=records(judged["subtasks"]), products=made
    )
    state.judge = lambda: judge(state.judging, state.manifest, state.tables, state.records, state.products)
    state.rows = lambda subject, **keys: [
        r for r in state.tables[subject] if all(r.get(k) == v for k, v in keys.items())
    ]
    return state


_CASES = {}


@pytest.fixture
def bias():
    return _copy("bias")


@pytest.fixture
def dark():
    return _copy("dark")


def _copy(family):
    if family not in _CASES:
        _CASES[family] = case(family)
    fresh = copy.deepcopy({k: v for k, v in vars(_CASES[family]).items() if k not in ("judge", "rows")})
    state = SimpleNamespace(**fresh)
    state.judge = lambda: judge(state.judging, state.manifest, state.tables, state.records, state.products)
    state.rows = lambda subject, **keys: [
        r for r in state.tables[subject] if all(r.get(k) == v for k, v in keys.items())
    ]
    return state
