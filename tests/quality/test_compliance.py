"""Compliance cells: three states, inclusive bounds, the worst value."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcamp.quality.compliance import all_ok, judge_cells
from calcamp.quality.limits import Limit, read_limits, side


def rows(values, **keys):
    return [{"obsid": 10 + n, "value": v, "ccd": 1, "quadrant": "E", **keys} for n, v in enumerate(values)]


def one(values, bounds=(0.0, 1.0)):
    (cell,) = judge_cells("x", rows(values), "value", ("ccd", "quadrant"), bounds)
    return cell


def test_three_states():
    assert one([0.0, 0.5, 1.0]).ok is True
    assert one([0.0, 0.5, 1.1]).ok is False
    assert one([None, math.nan]).ok is None
    assert one([None, math.nan]).reason == "not measured"
    assert one([1.0], lambda row: None).reason == "nothing to compare with"


def test_worst_value_and_obsids():
    cell = one([0.5, -3.0, 1.5, None])
    assert (cell.value, cell.mean, cell.minimum, cell.maximum) == (-3.0, pytest.approx(-1 / 3), -3.0, 1.5)
    assert (cell.n, cell.n_unmeasured, cell.n_violating, cell.obsids) == (3, 1, 2, [11, 12])
    assert one([0.5, 0.9]).value == 0.9  # the one nearest to a bound


def test_open_ends():
    assert one([1e9], (0, None)).ok is True
    assert one([-1e9], (None, 0)).ok is True
    assert one([-1], (0, None)).value == -1
    assert one([5], (None, None)).ok is True


def test_expected_cells_exist():
    cells = judge_cells(
        "x",
        rows([0.5]),
        "value",
        ("ccd", "quadrant"),
        (0, 1),
        expected=[{"ccd": c, "quadrant": "E"} for c in (1, 2)],
    )
    assert [(c.keys["ccd"], c.ok) for c in cells] == [(1, True), (2, None)]
    assert all_ok(cells) is True
    assert all_ok(cells[1:]) is None


def test_json_is_flat():
    data = one([2.0]).as_dict()
    assert (data["ccd"], data["quadrant"], data["ok"], data["value"]) == (1, "E", False, 2.0)


@given(st.lists(st.one_of(st.none(), st.floats(allow_infinity=False)), min_size=1, max_size=20))
def test_a_red_cell_never_shows_a_good_value(values):
    cell = one(values)
    if cell.ok is False:
        assert side(cell.value, 0.0, 1.0) != 0
        assert cell.n_violating == len(cell.obsids) > 0
    elif cell.ok:
        assert side(cell.value, 0.0, 1.0) == 0
    else:
        assert cell.value is None


def test_bounds_of_limits():
    assert Limit("x", -50, 50, mode="difference").bounds(2600) == (2550, 2650)
    assert Limit("x", 0.9, 1.1, mode="factor").bounds(100) == pytest.approx((90, 110))
    assert Limit("x", None, 1.1, mode="factor").bounds(100) == pytest.approx((None, 110))
    assert Limit("x", 0.9, 1.1, mode="factor").bounds(None) is None
    assert Limit("x", 0.9, 1.1, mode="factor", unpredicted=(-10, 100)).bounds(None) == (-10, 100)
    assert Limit("x", 0.9, 1.1, mode="factor", none_expected=(-5, 20)).bounds(0) == (-5, 20)
    assert read_limits({"x": {"low": 0, "high": 1, "cell": ["ccd"], "future": 3}})["x"].cell == ("ccd",)
    assert side(13.2 - 13.0, -0.2, 0.2) == 0
