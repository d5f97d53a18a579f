"""Every conversion round-trips on every quadrant, and the check points of the formats page hold."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calcamp.detector.arrays import assemble, canonical, image_view, quadrant_view
from calcamp.detector.dq import BADMASK, DQ, describe
from calcamp.detector.geometry import (
    HALVES,
    HK_SUFFIX_HALF,
    QUADRANTS,
    SCRIPT_SUFFIX_HALF,
    Detector,
    canonical_sign_e2,
    half_of,
)

FULL = Detector("ccd273")
MINI = Detector("ccd273-mini", image_columns=512, image_rows=516)
FPA = Detector("ccd273-fpa", overscan=29)
detectors = st.sampled_from([FULL, MINI, FPA])
quadrants = st.sampled_from(QUADRANTS)
fractions = st.floats(0, 1, exclude_max=True)


def test_sizes_of_the_ground_campaign():
    assert FULL.quadrant_shape == (2086, 2119)
    assert FULL.ccd_shape == (4172, 4238)
    assert FULL.phys_shape == (4136, 4096)
    assert MINI.ccd_shape == (2 * 536, 2 * 583)
    assert FPA.columns == 2128


@pytest.mark.parametrize(
    ("quadrant", "x", "y"), [("E", 100, 4071), ("F", 4137, 4071), ("G", 4137, 100), ("H", 100, 100)]
)
def test_canonical_check_points(quadrant, x, y):
    assert FULL.qcan_to_ccd(100, 100, quadrant) == (x, y)


@pytest.mark.parametrize(
    ("quadrant", "ccd", "phys"),
    [
        ("H", (51, 0), (0, 0)),
        ("G", (2139, 0), (2048, 0)),
        ("H", (2098, 2065), (2047, 2065)),
        ("E", (51, 2106), (0, 2070)),
        ("F", (4186, 4171), (4095, 4135)),
    ],
)
def test_physical_check_points(quadrant, ccd, phys):
    assert FULL.ccd_to_phys(*ccd, quadrant) == phys
    assert FULL.quadrant_at(*ccd) == quadrant
    assert FULL.quadrant_at_phys(*phys) == quadrant


def test_injection_rows_are_no_place():
    assert [FULL.quadrant_at_phys(10, y) for y in (2065, 2066, 2069, 2070)] == ["H", None, None, "E"]
    assert FULL.quadrant_at_phys(-3, 10) is None


@given(detectors, quadrants, fractions, fractions)
def test_conversions_round_trip(detector, quadrant, fx, fy):
    x, y = fx * (detector.columns - 1), fy * (detector.rows - 1)
    assert detector.ccd_to_qcan(*detector.qcan_to_ccd(x, y, quadrant), quadrant) == pytest.approx((x, y))
    assert detector.ccd_to_qrel(*detector.qrel_to_ccd(x, y, quadrant), quadrant) == pytest.approx((x, y))
    assert detector.qcan_to_qrel(*detector.qrel_to_qcan(x, y, quadrant), quadrant) == pytest.approx((x, y))
    ccd = detector.qcan_to_ccd(x, y, quadrant)
    assert detector.phys_to_ccd(*detector.ccd_to_phys(*ccd, quadrant), quadrant) == pytest.approx(ccd)


@given(detectors, quadrants, fractions, fractions)
def test_image_pixels_lie_on_the_silicon_of_their_quadrant(detector, quadrant, fx, fy):
    x = detector.prescan + int(fx * detector.image_columns)
    y = int(fy * detector.image_rows)
    assert detector.in_image(x, y)
    assert (
        detector.quadrant_at_phys(*detector.ccd_to_phys(*detector.qcan_to_ccd(x, y, quadrant), quadrant))
        == quadrant
    )


@given(detectors, quadrants)
def test_the_node_is_the_first_pixel(detector, quadrant):
    frame = np.zeros(detector.ccd_shape, np.uint8)
    x, y = detector.qcan_to_ccd(0, 0, quadrant)
    frame[y, x] = 1
    view = quadrant_view(frame, quadrant, detector)
    assert view.shape == detector.quadrant_shape
    assert view[0, 0] == 1
    assert view.sum() == 1
    assert view.base is not None  # no copy


@given(quadrants)
def test_canonical_is_its_own_inverse(quadrant):
    array = np.arange(12).reshape(3, 4)
    assert np.array_equal(canonical(canonical(array, quadrant), quadrant), array)


def test_assemble_puts_quadrants_back():
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 65536, MINI.ccd_shape, dtype=np.uint16)
    quadrant_arrays = {q: quadrant_view(frame, q, MINI).copy() for q in QUADRANTS}
    assert np.array_equal(assemble(quadrant_arrays, MINI), frame)
    assert image_view(quadrant_arrays["F"], MINI).shape == (516, 512)


def test_regions_of_the_checks():
    rows, columns = FULL.region("pre")
    assert (rows, columns) == (slice(0, 2066), slice(25, 46))
    assert FULL.region("img")[1] == slice(56, 2094)
    assert FULL.region("ove")[1] == slice(2104, 2114)
    assert FULL.region("pov")[0] == slice(2066, 2086)
    assert FULL.region("img", vend=100)[0] == slice(0, 100)
    assert FULL.region("pov", vend=100)[0] == slice(100, 100)
    assert FULL.region("pov", vend=2066)[0] == slice(2066, 2066)


def test_a_full_read_stays_full_on_another_size():
    assert MINI.read_rows(0, 2086) == (0, 536)
    assert MINI.read_rows(0, 2066) == (0, 516)
    assert MINI.read_rows(0, 100) == (0, 100)


@given(detectors)
def test_tiles_cover_the_image(detector):
    rows, columns = detector.tile_edges()
    assert rows[0] == columns[0] == 0
    assert (rows[-1], columns[-1]) == detector.image_shape
    assert all(a < b for a, b in itertools.pairwise(rows))
    assert len(rows) == len(columns) == 9


def test_halves_have_one_table():
    # Script keys ending _T act on G and H; house-keeping names ending _T belong to E and F.
    assert HALVES[SCRIPT_SUFFIX_HALF["T"]] == ("G", "H")
    assert HALVES[SCRIPT_SUFFIX_HALF["B"]] == ("E", "F")
    assert HALVES[HK_SUFFIX_HALF["T"]] == ("E", "F")
    assert HALVES[HK_SUFFIX_HALF["B"]] == ("G", "H")
    assert [half_of(q) for q in QUADRANTS] == ["half_EF", "half_EF", "half_GH", "half_GH"]


def test_sign_of_e2_follows_the_flips():
    assert {q: canonical_sign_e2(q) for q in QUADRANTS} == {"E": -1, "F": 1, "G": -1, "H": 1}
    # An ellipse along +x+y of the CCD, seen in canonical orientation.
    y, x = np.mgrid[-10:11, -10:11]
    ellipse = np.exp(-((x + y) ** 2) / 40 - (x - y) ** 2 / 10)
    for quadrant in QUADRANTS:
        seen = canonical(ellipse, quadrant)
        assert np.sign((seen * x * y).sum()) == canonical_sign_e2(quadrant)


@given(detectors)
def test_detector_is_plain_data(detector):
    assert Detector.from_dict(detector.as_dict()) == detector


def test_dq_bits_are_fixed():
    assert (DQ.HOT, DQ.BAD_COL, DQ.SATURATED, DQ.FLAT_INVALID, DQ.INJECTION_BAD) == (
        1,
        64,
        256,
        16384,
        131072,
    )
    assert not BADMASK & DQ.NON_IMAGE
    assert describe(257) == "HOT|SATURATED"
    assert describe(0) == "good"
