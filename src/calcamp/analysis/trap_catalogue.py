"""One catalogue of traps from the catalogues of several tests, temperatures and CCDs.

A trap is the same where register, CCD, quadrant, pixel and place in the pixel are the same. Every test's own tau
and Pc are kept; emission times are brought to a reference temperature with ``tau = exp(E/kT) / (const T^2)``
(Shockley-Read-Hall; analysis page 3.5) and averaged with weights where they agree. Where the tests lie at
different temperatures the energy E is fitted instead of assumed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from calcamp.analysis.statistics import NAN, about

BOLTZMANN_EV_K = 8.617333e-5
#: Thermal velocity times density of states at 153 K, 1/(cm2 s) (analysis page 4); both together grow as T^2.
_CAPTURES_153K = 1.64e7 * 1.03e19
#: Range of temperatures, K, from which an energy can be told.
LEAST_RANGE_K = 2.0
#: Chance below which measurements of one trap are said to differ.
_DIFFER = 0.0027


def tau_factor(kelvin: float, reference: float, energy: float) -> float:
    """What tau at `kelvin` is to be multiplied by to be that at `reference` K, for an energy level in eV."""
    return (kelvin / reference) ** 2 * math.exp(energy / BOLTZMANN_EV_K * (1 / reference - 1 / kelvin))


def tau_slope(kelvin: float, energy: float) -> float:
    """Share by which tau falls for each K more."""
    return energy / (BOLTZMANN_EV_K * kelvin**2) + 2 / kelvin


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Traps that one test found in one CCD. `traps` has the columns of the catalogue product as sequences."""

    test: int = field(metadata=about("1", "number of the test, from 1"))
    ccd: int = field(metadata=about("", "1 to 3"))
    register: str = field(metadata=about("", "parallel or serial"))
    temperature: float = field(metadata=about("K", "of the CCD; NaN: not known, taken as the reference"))
    temperature_err: float = field(metadata=about("K", "its error, common to the test"))
    traps: Mapping[str, Sequence] = field(metadata=about("", "columns of the catalogue"))


def join_traps(
    catalogues: Sequence[Catalogue], reference_K: float = 153.0, energy_eV: float = 0.23
) -> tuple[dict[str, list], dict[str, list]]:
    """(joined traps, all measurements), columns by name.

    Joined: keys of the trap; in how many tests it was found and could have been; tau at the reference temperature
    with error, or its limits (``is_limit``); chi2 of the tests about it; energy and cross-section where
    temperatures differ; weighted Pc where the tests agree; ``status``; then tau (at the test's own temperature),
    Pc and status of each test, ``tau_1`` ....

    Status: ``ok``; ``differs``: emission times that do not agree, none is given; ``limit``: tau outside the range
    of the tests; ``poor``: no usable fit. Pairs that differ without pumping (``static``) are no traps and are left
    out.
    """
    found: dict[tuple, list[dict]] = {}
    for catalogue in catalogues:
        names = list(catalogue.traps)
        for values in zip(*catalogue.traps.values(), strict=True):
            trap = dict(zip(names, values, strict=True))
            if trap["status"] == "static":
                continue
            place = float(trap["position"])
            # A trap that was not fitted has no place in the pixel: mode and sign stand for it.
            where = place if math.isfinite(place) else f"{trap['mode']} {trap['sign']}"
            key = (
                catalogue.register,
                catalogue.ccd,
                trap["quadrant"],
                int(trap["row"]),
                int(trap["image_column"]),
                str(where),
            )
            found.setdefault(key, []).append({**trap, "_from": catalogue})
    searched: dict[tuple, set[int]] = {}
    for c in catalogues:
        searched.setdefault((c.register, c.ccd), set()).add(c.test)
    tests = sorted({c.test for c in catalogues})
    joined, measured = [], []
    for number, key in enumerate(sorted(found), 1):
        own = found[key]
        joined.append(
            {
                "trap": number,
                **_identity(key, own, len(searched[key[:2]])),
                **_combined(own, reference_K, energy_eV),
                **_each_test(own, tests),
            }
        )
        measured += [_measurement(number, m) for m in own]
    return _columns(joined, _JOINED + _per_test(tests)), _columns(measured, _MEASURED)


_JOINED = [
    "trap",
    "register",
    "ccd",
    "quadrant",
    "row",
    "image_column",
    "position",
    "modes",
    "n_found",
    "n_searched",
    "tau",
    "tau_err",
    "tau_low",
    "tau_high",
    "is_limit",
    "chi2",
    "dof",
    "energy",
    "energy_err",
    "cross_section",
    "pc",
    "pc_err",
    "multiplicity",
    "status",
]
_MEASURED = [
    "trap",
    "test",
    "ccd",
    "quadrant",
    "mode",
    "temperature",
    "tau",
    "tau_err",
    "tau_low",
    "tau_high",
    "pc",
    "pc_err",
    "multiplicity",
    "chi2",
    "significance",
    "status",
]
_TEST = ("tau", "tau_err", "pc", "pc_err", "status")
#: Columns of the joined table that are texts or whole numbers; the others are floats.
_TEXTS = ("register", "quadrant", "modes", "status")
_WHOLE = (
    *("trap", "ccd", "row", "image_column", "n_found", "n_searched", "dof", "multiplicity", "test", "mode"),
)


def _per_test(tests) -> list[str]:
    return [f"{name}_{test}" for test in tests for name in _TEST]


def _columns(rows: list[dict], names: Sequence[str]) -> dict[str, np.ndarray]:
    out = {}
    for name in names:
        base = name.rsplit("_", 1)[0] if name.rsplit("_", 1)[-1].isdigit() else name
        values = [row[name] for row in rows]
        if base in _TEXTS:
            out[name] = np.array(values, "U") if values else np.empty(0, "U8")
        else:
            kind = np.int32 if base in _WHOLE else bool if base == "is_limit" else float
            out[name] = np.array(values, kind)
    return out


def _identity(key, own, searched: int) -> dict:
    register, ccd, quadrant, row, column, _ = key
    return {
        "register": register,
        "ccd": ccd,
        "quadrant": quadrant,
        "row": row,
        "image_column": column,
        "position": float(own[0]["position"]),
        "modes": " ".join(str(m) for m in sorted({int(m["mode"]) for m in own})),
        "n_found": len({m["_from"].test for m in own}),
        "n_searched": searched,
        "multiplicity": max(int(m["multiplicity"]) for m in own),
    }


def _measurement(number: int, m: dict) -> dict:
    source = m["_from"]
    numbers = ["tau", "tau_err", "tau_low", "tau_high", "pc", "pc_err", "chi2", "significance"]
    return {
        "trap": number,
        "test": source.test,
        "ccd": source.ccd,
        "quadrant": m["quadrant"],
        "mode": int(m["mode"]),
        "temperature": source.temperature,
        "multiplicity": int(m["multiplicity"]),
        "status": str(m["status"]),
        **{name: float(m[name]) for name in numbers},
    }


def _each_test(own, tests) -> dict:
    """tau and Pc that each test gives; its modes averaged with weights, NaN where it did not find the trap."""
    out = {}
    for test in tests:
        mine = [m for m in own if m["_from"].test == test]
        good = [m for m in mine if m["status"] == "ok"] or mine
        tau, tau_err = _mean([float(m["tau"]) for m in good], [float(m["tau_err"]) for m in good])
        pc, pc_err = _mean([float(m["pc"]) for m in good], [float(m["pc_err"]) for m in good])
        status = str(good[0]["status"]) if good else "not found"
        values = (tau, tau_err, pc, pc_err, status)
        out |= {f"{name}_{test}": value for name, value in zip(_TEST, values, strict=True)}
    return out


def _mean(values, errors) -> tuple[float, float]:
    pairs = [(v, e) for v, e in zip(values, errors, strict=True) if math.isfinite(v) and e > 0]
    if not pairs:
        return (values[0], errors[0]) if values else (NAN, NAN)
    weight = [1 / e**2 for _, e in pairs]
    return sum(w * v for w, (v, _) in zip(weight, pairs, strict=True)) / sum(weight), sum(weight) ** -0.5


def _combined(own, reference: float, energy: float) -> dict:
    """Emission time at the reference temperature, energy, and Pc, from all usable measurements of a trap."""
    out = dict.fromkeys(
        ["tau", "tau_err", "tau_low", "tau_high", "energy", "energy_err", "cross_section", "pc", "pc_err"],
        NAN,
    )
    out |= {"is_limit": False, "chi2": NAN, "dof": 0, "status": "poor"}
    good = [m for m in own if m["status"] == "ok" and float(m["tau_err"]) > 0]
    limits = [m for m in own if m["status"] in ("lower", "upper")]
    kelvins = np.array([_kelvin(m, reference) for m in good])
    if good:
        fit = _fit(good, kelvins, reference, energy)
        differ = fit["dof"] > 0 and _chance(fit["chi2"], fit["dof"]) < _DIFFER
        out |= {"chi2": fit["chi2"], "dof": fit["dof"], "status": "differs" if differ else "ok"}
        if not differ:
            out |= {name: fit[name] for name in ("tau", "tau_err", "energy", "energy_err", "cross_section")}
            width = 1.645 * fit["tau_err"] / fit["tau"]
            out |= {"tau_low": fit["tau"] * math.exp(-width), "tau_high": fit["tau"] * math.exp(width)}
    elif limits:
        low = [_scaled(m, "tau_low", reference, energy) for m in limits if m["status"] == "lower"]
        high = [_scaled(m, "tau_high", reference, energy) for m in limits if m["status"] == "upper"]
        out |= {"tau_low": max(low, default=NAN), "tau_high": min(high, default=NAN)}
        out |= {"is_limit": True, "status": "limit"}
    out |= _joint_pc(good)
    return out


def _kelvin(m, reference: float) -> float:
    return m["_from"].temperature if math.isfinite(m["_from"].temperature) else reference


def _scaled(m, name: str, reference: float, energy: float) -> float:
    return float(m[name]) * tau_factor(_kelvin(m, reference), reference, energy)


def _fit(good, kelvins, reference: float, energy: float) -> dict:
    """Least squares of ln(tau T^2) against 1/kT, with the error of each test's temperature common to its modes."""
    y = np.array([math.log(float(m["tau"])) for m in good]) + 2 * np.log(kelvins / reference)
    x = (1 / kelvins - 1 / reference) / BOLTZMANN_EV_K
    own = np.array([float(m["tau_err"]) / float(m["tau"]) for m in good])
    free = len(good) > 1 and np.ptp(kelvins) >= LEAST_RANGE_K
    solution, covariance, chi2 = None, None, NAN
    for _ in range(3 if free else 1):  # the error of the temperature scales with the energy found
        error = [m["_from"].temperature_err for m in good]
        drift = np.array([0.0 if not math.isfinite(e) else e for e in error])
        drift = drift * np.array([tau_slope(k, energy) for k in kelvins])
        test = np.array([m["_from"].test for m in good])
        total = np.diag(own**2) + np.outer(drift, drift) * (test[:, None] == test[None, :])
        inverse = np.linalg.inv(total)
        design = np.stack([np.ones_like(x), x], axis=1) if free else np.ones((x.size, 1))
        target = y if free else y - energy * x
        covariance = np.linalg.inv(design.T @ inverse @ design)
        solution = covariance @ design.T @ inverse @ target
        rest = target - design @ solution
        chi2 = float(rest @ inverse @ rest)
        if free:
            energy = float(np.clip(solution[1], 0.05, 0.7))
    tau = math.exp(float(solution[0]))
    out = {
        "tau": tau,
        "tau_err": tau * math.sqrt(covariance[0, 0]),
        "chi2": chi2,
        "dof": y.size - design.shape[1],
    }
    out |= {"energy": NAN, "energy_err": NAN, "cross_section": NAN}
    if free:
        level, err = float(solution[1]), math.sqrt(covariance[1, 1])
        captures = _CAPTURES_153K * (reference / 153.0) ** 2
        section = math.exp(level / (BOLTZMANN_EV_K * reference)) / (captures * tau * 1e-6)
        out |= {"energy": level, "energy_err": err, "cross_section": section}
    return out


def _chance(chi2: float, dof: int) -> float:
    from scipy.special import gammaincc

    return float(gammaincc(dof / 2, chi2 / 2))


def _joint_pc(good) -> dict:
    """Weighted Pc where all measurements agree; tests with other injected levels rightly give another one."""
    if not good:
        return {}
    values, errors = ([float(m[name]) for m in good] for name in ("pc", "pc_err"))
    pc, err = _mean(values, errors)
    known = [(v, e) for v, e in zip(values, errors, strict=True) if e > 0]
    chi2 = sum(((v - pc) / e) ** 2 for v, e in known)
    if len(known) > 1 and _chance(chi2, len(known) - 1) < _DIFFER:
        return {}
    return {"pc": pc, "pc_err": err}
