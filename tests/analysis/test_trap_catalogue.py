"""One catalogue from several tests: same trap recognised, emission times brought together, limits kept apart."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support import assert_pulls

from calcamp.analysis.trap_catalogue import Catalogue, join_traps, tau_factor

ERROR = 0.06  # of ln tau
NAMES = (
    "quadrant mode row image_column position sign tau tau_err tau_low tau_high pc pc_err multiplicity chi2 "
    "significance status"
)


def catalogue(test, kelvin, tau, ccd=1, rng=None, kelvin_err=0.0, **changes):
    """A test that found traps of the given emission times, each in a pixel of its own."""
    number = len(tau)
    seen = np.asarray(tau, float)
    if rng is not None:
        seen = seen * np.exp(ERROR * rng.normal(size=number))
    columns = {
        "quadrant": ["E"] * number,
        "mode": [123] * number,
        "row": list(range(10, 10 + number)),
        "image_column": list(range(20, 20 + number)),
        "position": [1.25] * number,
        "sign": [1] * number,
        "tau": seen.tolist(),
        "tau_err": (ERROR * seen).tolist(),
        "tau_low": (0.9 * seen).tolist(),
        "tau_high": (1.1 * seen).tolist(),
        "pc": [0.8] * number,
        "pc_err": [0.03] * number,
        "multiplicity": [1] * number,
        "chi2": [4.0] * number,
        "significance": [12.0] * number,
        "status": ["ok"] * number,
    }
    assert set(columns) == set(NAMES.split())
    return Catalogue(test, ccd, "parallel", kelvin, kelvin_err, columns | changes)


def at(kelvin, tau_153, energy):
    return np.asarray(tau_153) / tau_factor(kelvin, 153.0, energy)


def test_one_temperature_weighted_mean_with_true_errors():
    rng = np.random.default_rng(1)
    tau = np.geomspace(100, 8000, 400)
    traps, measured = join_traps([catalogue(1, 153.0, tau, rng=rng), catalogue(2, 153.0, tau, rng=rng)])
    assert len(traps["trap"]) == 400
    assert len(measured["trap"]) == 800
    assert set(traps["n_found"]) == set(traps["n_searched"]) == {2}
    good = traps["status"] == "ok"
    assert good.mean() > 0.98
    assert np.allclose(traps["tau_err"][good] / traps["tau"][good], ERROR / np.sqrt(2), rtol=0.1)
    assert_pulls(np.log(traps["tau"] / tau)[good] / (ERROR / np.sqrt(2)), what="joined ln tau", bias=0.15)
    assert traps["pc"][0] == pytest.approx(0.8)
    # What each test says stays.
    assert np.allclose(traps["tau_1"], measured["tau"][measured["test"] == 1])


def test_three_temperatures_give_the_energy():
    rng = np.random.default_rng(2)
    tau, energy = np.full(300, 1500.0), 0.27
    found = [catalogue(k, t, at(t, tau, energy), rng=rng) for k, t in enumerate((148.0, 153.0, 158.0), 1)]
    traps, _ = join_traps(found)
    good = traps["status"] == "ok"
    assert good.mean() > 0.98
    assert_pulls((traps["energy"] - energy)[good] / traps["energy_err"][good], what="energy", bias=0.2)
    assert_pulls(
        np.log(traps["tau"] / tau)[good] * (traps["tau"] / traps["tau_err"])[good], what="tau", bias=0.2
    )
    assert (traps["cross_section"][good] > 0).all()


def test_a_temperature_that_is_not_known_well_is_common_to_the_test():
    rng = np.random.default_rng(3)
    tau = np.full(20, 1500.0)
    found = [catalogue(k, 153.0, tau, rng=rng, kelvin_err=1.0) for k in (1, 2)]
    traps, _ = join_traps(found)
    share = (traps["tau_err"] / traps["tau"])[traps["status"] == "ok"]
    assert np.allclose(share, np.sqrt((ERROR**2 + 0.127**2) / 2), rtol=0.05)


def test_emission_times_that_differ_are_not_averaged():
    traps, _ = join_traps([catalogue(1, 153.0, [1000.0]), catalogue(2, 153.0, [2000.0])])
    assert traps["status"].tolist() == ["differs"]
    assert np.isnan(traps["tau"][0])
    assert (traps["tau_1"][0], traps["tau_2"][0]) == (1000.0, 2000.0)


def test_limits_static_pairs_and_traps_of_one_test():
    first = catalogue(1, 153.0, [30.0, 1000.0, 500.0], status=["upper", "static", "ok"])
    second = catalogue(2, 153.0, [40.0], status=["upper"])
    traps, _ = join_traps([first, second])
    assert traps["status"].tolist() == ["limit", "ok"]
    assert traps["is_limit"].tolist() == [True, False]
    assert traps["tau_high"][0] == pytest.approx(33.0)
    assert np.isnan(traps["tau"][0])
    assert traps["n_found"].tolist() == [2, 1]
    assert traps["status_2"].tolist() == ["upper", "not found"]


def test_other_place_register_or_ccd_is_another_trap():
    one = catalogue(1, 153.0, [1000.0])
    moved = catalogue(2, 153.0, [1000.0], position=[3.75])
    other = catalogue(3, 153.0, [1000.0], ccd=2)
    traps, _ = join_traps([one, moved, other])
    assert traps["n_found"].tolist() == [1, 1, 1]
    assert sorted(traps["n_searched"].tolist()) == [1, 2, 2]


def test_nothing_found():
    traps, measured = join_traps([catalogue(1, 153.0, []), catalogue(2, 153.0, [])])
    assert len(traps["trap"]) == len(measured["trap"]) == 0
    assert "tau_2" in traps
