"""Prepared frames: values, data quality, variance, products."""

import numpy as np
import pytest
from tests.analysis.frames import OFFSETS, raw_frame

from calcamp.analysis import prepare as p
from calcamp.detector.arrays import quadrant_view
from calcamp.detector.dq import BADMASK, DQ
from calcamp.detector.geometry import QUADRANTS
from support import assert_pulls


@pytest.mark.parametrize("offset", ["row", "median", "smooth"])
@pytest.mark.parametrize("scan", ["pre", "both"])
def test_signal_above_offset(rng, mini, offset, scan):
    raw = raw_frame(rng, mini, signal=250.0)
    before = raw.copy()
    made = p.prepare(raw, mini, {"offset": offset, "scan": scan})
    assert np.array_equal(raw, before)
    assert made.frame.dtype == np.float32
    assert made.dq_frame.dtype == np.uint32
    pulls = []
    for quadrant in QUADRANTS:
        assert made.data[quadrant].base is not None  # a view
        image = made.image(quadrant)
        level = made.offsets[quadrant].level_err
        pulls.append((image.mean() - 250) / np.hypot(level, 1.2 / np.sqrt(image.size)))
        assert not made.image_mask(quadrant).any()
        assert made.offsets[quadrant].level == pytest.approx(OFFSETS[quadrant], abs=0.1)
    assert_pulls(pulls)
    assert any(offset in step for step in made.steps)


def test_scans_and_rows_not_read(rng, mini):
    raw = raw_frame(rng, mini)
    made = p.prepare(raw, mini, vstart=10, vend=100)
    for quadrant in QUADRANTS:
        dq = made.dq[quadrant]
        inside = np.zeros(mini.quadrant_shape, bool)
        inside[10:100, mini.prescan : mini.prescan + mini.image_columns] = True
        assert np.array_equal(dq == 0, inside)
        assert np.all(dq[~inside] == DQ.NON_IMAGE)
        assert np.all(made.data[quadrant][100:] == 0)
        assert made.mask(quadrant)[100:].all()
        assert not made.mask(quadrant)[10:100].any()
        assert made.image_mask(quadrant).shape == mini.image_shape
    assert np.isfinite(made.frame).all()


def test_lost_and_saturated_pixels(rng, mini):
    raw = raw_frame(rng, mini)
    view = quadrant_view(raw, "F", mini)
    view[200, 300] = 65535
    view[0, 100] = 65535  # at the edge
    view[50, 200] = 0
    view[60, 30] = 0  # in the prescan
    made = p.prepare(raw, mini, grow=2)
    dq = made.dq["F"]
    saturated = (dq & DQ.SATURATED) != 0
    assert saturated[198:203, 298:303].all()
    assert saturated[0:3, 98:103].all()
    assert saturated.sum() == 25 + 15
    assert np.argwhere(dq & DQ.LOST).tolist() == [[50, 200], [60, 30]]
    assert (made.lost["F"], made.saturated["F"], made.lost["E"]) == (2, 2, 0)
    assert not (made.dq["E"] & BADMASK).any()
    assert made.dq_frame.flags.writeable  # this frame has a plane of its own
    lower = p.prepare(raw, mini, saturation={"F": 2652.0}, grow=0)
    assert lower.saturated["F"] > 1000
    assert lower.saturated["G"] == 0


def test_frames_without_flags_share_one_plane(rng, mini):
    raw = raw_frame(rng, mini)
    first, second = (p.prepare(raw, mini) for _ in range(2))
    assert first.dq_frame is second.dq_frame
    assert not first.dq_frame.flags.writeable
    own = first.with_own_dq()
    own.dq["E"][5, 100] |= DQ.COSMIC
    assert own.mask("E")[5, 100]
    assert not second.mask("E")[5, 100]
    assert own.with_own_dq() is own
    assert own.data["E"] is first.data["E"]


def test_memory_of_an_earlier_frame_is_used_again(rng, mini):
    first = p.prepare(raw_frame(rng, mini), mini)
    raw = raw_frame(rng, mini)
    fresh, again = p.prepare(raw, mini), p.prepare(raw, mini, out=first.frame)
    assert again.frame is first.frame
    assert np.array_equal(again.frame, fresh.frame)
    with pytest.raises(p.PrepareError, match="out is"):
        p.prepare(raw, mini, out=np.zeros((3, 3), np.float32))


def test_row_without_offset_is_flagged(rng, mini):
    raw = raw_frame(rng, mini)
    quadrant_view(raw, "G", mini)[77, :51] = 65535
    made = p.prepare(raw, mini)
    flagged = (made.dq["G"] & DQ.NO_OFFSET) != 0
    assert flagged[77].all()
    assert flagged.sum() == mini.columns
    assert abs(made.image("G")[77].mean()) < 1
    assert np.isfinite(made.frame).all()


def test_dead_frame_has_no_nan(mini):
    made = p.prepare(np.zeros(mini.ccd_shape, np.uint16), mini, {"offset": "smooth"})
    assert np.isfinite(made.frame).all()
    assert all(made.mask(q).all() for q in QUADRANTS)
    assert made.lost["E"] == mini.rows * mini.columns


def test_products(rng, mini):
    signal = 1000.0
    bias = rng.normal(0, 3, mini.ccd_shape).astype(np.float32)
    flat = rng.normal(1, 0.02, mini.ccd_shape).astype(np.float32)
    raw = raw_frame(rng, mini)
    clean = {q: quadrant_view(raw, q, mini) for q in QUADRANTS}
    values = raw.astype(float)
    for quadrant in QUADRANTS:
        view, response = (quadrant_view(a, quadrant, mini) for a in (values, flat))
        area = mini.region("img", trimmed=False)
        view[area] += signal * response[area]
    raw = np.rint(values + bias).astype(np.uint16)
    dq = np.zeros(mini.ccd_shape, np.uint32)
    quadrant_view(dq, "E", mini)[10, 70] = DQ.HOT
    quadrant_view(flat, "E", mini)[11, 71] = 0.05
    quadrant_view(flat, "E", mini)[12, 72] = np.nan
    quadrant_view(bias, "H", mini)[13, 73] = np.nan
    products = {"dq": dq, "bias": p.Plane(bias, offset="median", scan="pre", name="MB"), "flat": flat}
    made = p.prepare(raw, mini, {"offset": "median"}, **products)
    for quadrant in QUADRANTS:
        image = made.image(quadrant)
        assert image.mean() == pytest.approx(signal, abs=0.5)
        assert image[20:].std() == pytest.approx(np.hypot(1.2, 0.5 * 2**-0.5), rel=0.1)
    assert clean["E"].shape == made.data["E"].shape
    assert made.dq["E"][10, 70] == DQ.HOT
    assert made.dq["E"][11, 71] == DQ.FLAT_INVALID
    assert made.dq["E"][12, 72] == DQ.FLAT_INVALID
    assert made.dq["H"][13, 73] == DQ.MASKED
    assert np.isfinite(made.frame).all()
    assert any("MB" in step for step in made.steps)
    prebuilt = p.prepare(raw, mini, {"offset": "median"}, calibration=p.calibration(mini, **products))
    assert np.array_equal(prebuilt.frame, made.frame)
    assert np.array_equal(prebuilt.dq_frame, made.dq_frame)
    bare = p.prepare(
        raw, mini, {"offset": "median", "use_mask": False, "use_bias": False, "use_flat": False}, **products
    )
    assert not (bare.dq["E"] & DQ.HOT).any()
    assert bare.image("E").std() > 10


def test_bad_scan_pixels_do_not_enter_the_offset(rng, mini):
    raw = raw_frame(rng, mini)
    dq = np.zeros(mini.ccd_shape, np.uint32)
    view = quadrant_view(raw, "E", mini)
    view[:, 30:38] += 4  # too small for the clip
    quadrant_view(dq, "E", mini)[:, 30:38] = DQ.BAD_COL
    assert abs(p.prepare(raw, mini, dq=dq).image("E").mean()) < 0.05
    assert p.prepare(raw, mini).image("E").mean() < -1


@pytest.mark.parametrize("quadrant", QUADRANTS)
def test_variance_predicts_the_scatter(rng, mini, quadrant):
    """Pulls of prepared pixels, shot noise included."""
    gain, signal = 3.5, 400.0
    raw = raw_frame(rng, mini)
    view = quadrant_view(raw, quadrant, mini)
    area = mini.region("img", trimmed=False)
    electrons = rng.poisson(signal * gain, mini.image_shape) / gain
    view[area] = np.rint(OFFSETS[quadrant] + electrons + rng.normal(0, 1.2, mini.image_shape)).astype(
        np.uint16
    )
    made = p.prepare(raw, mini)
    variance = made.variance(quadrant, gain)
    assert variance.dtype == np.float32
    assert variance.shape == mini.quadrant_shape
    pulls = (made.image(quadrant) - signal) / np.sqrt(variance[area])
    # Row offsets are common to the pixels of a row.
    assert_pulls(pulls, n=mini.image_rows, bias=0.05)
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1, abs=0.01)
    part = made.variance(quadrant, gain, region=area)
    assert np.array_equal(part, variance[area])
    assert made.variance(quadrant, gain, read_noise=5.0)[0, 0] > 25


def test_variance_of_products(rng, mini):
    raw = raw_frame(rng, mini, signal=100)
    flat = p.Plane(np.full(mini.ccd_shape, 2.0, np.float32), error=np.full(mini.ccd_shape, 0.1, np.float32))
    bias = p.Plane(np.zeros(mini.ccd_shape, np.float32), error=np.full(mini.ccd_shape, 3.0, np.float32))
    made = p.prepare(raw, mini, {"offset": "median"}, bias=bias, flat=flat)
    area = mini.region("img", trimmed=False)
    # The signal is 100 before the flat and 50 after it.
    expected = (1.44 + 1 / 12 + 100 / 3.5 + 9) / 4 + (100 * 0.1 / 4) ** 2
    assert made.variance("E", 3.5)[area].mean() == pytest.approx(expected, rel=0.01)
    none = p.prepare(raw, mini, {"offset": "none"})
    assert none.image("E").mean() == pytest.approx(2800.3, abs=0.1)
    assert none.variance("E", 3.5)[area].mean() == pytest.approx(1.44 + 1 / 12 + 100 / 3.5, rel=0.01)


def test_what_cannot_be_applied_is_refused(rng, mini):
    raw = raw_frame(rng, mini)
    bias = p.Plane(np.zeros(mini.ccd_shape, np.float32), offset="median", scan="pre", name="MB.fits")
    cases = (
        ({"raw": raw[:-1]}, "shape"),
        ({"options": {"ofset": "row"}}, "ofset"),
        ({"options": {"offset": "row"}, "bias": bias}, "MB.fits was made with offset 'median'"),
        ({"options": {"offset": "median", "scan": "ove"}, "bias": bias}, "scan 'pre'"),
        ({"bias": np.zeros((3, 3))}, "bias of shape"),
        ({"dq": np.zeros((3, 3), np.uint32)}, "data quality of shape"),
        ({"calibration": p.calibration(mini), "vend": 100}, "rows"),
    )
    for arguments, message in cases:
        with pytest.raises(p.PrepareError, match=message):
            p.prepare(**({"raw": raw, "detector": mini} | arguments))
    # Smoothed and unsmoothed row means have the same expectation.
    rows = p.Plane(np.zeros(mini.ccd_shape, np.float32), offset="smooth", scan="pre")
    assert p.prepare(raw, mini, {"offset": "row"}, bias=rows)
    with pytest.raises(p.PrepareError, match="read noise"):
        p.prepare(np.zeros_like(raw), mini).variance("E", 3.5)


@pytest.mark.parametrize("products", [(), ("bias",), ("bias", "flat")])
def test_on_demand_gives_the_same_pixels(rng, mini, products):
    raw = raw_frame(rng, mini)
    raw[100, 300] = 0
    made = {name: rng.normal(1, 0.1, mini.ccd_shape).astype(np.float32) for name in products}
    whole, demand = (
        p.prepare(raw, mini, {"offset": "smooth"}, **made, on_demand=lazy) for lazy in (False, True)
    )
    assert demand.frame is None
    room = np.full(mini.quadrant_shape, np.nan, np.float32)
    np.testing.assert_array_equal(demand.dq_frame, whole.dq_frame)
    row, column = np.array([5, 99, 400]), np.array([60, 300, 51])
    for quadrant in QUADRANTS:
        part, full = demand.data[quadrant], whole.data[quadrant]
        assert part.shape == full.shape
        np.testing.assert_array_equal(part[10:30], full[10:30])
        np.testing.assert_array_equal(part[::7, 3:90:5], full[::7, 3:90:5])
        np.testing.assert_array_equal(part[row, column], full[row, column])
        np.testing.assert_array_equal(demand.image(quadrant)[:], whole.image(quadrant))
        assert part.into(room) is room
        np.testing.assert_array_equal(room, full)


def test_on_demand_is_whole_where_rows_were_not_read(rng, mini):
    assert p.prepare(raw_frame(rng, mini), mini, vend=300, on_demand=True).frame is not None


def test_invalid_pixels_are_those_of_the_frame_alone(rng, mini):
    raw = raw_frame(rng, mini)
    quadrant = p.quadrant_view(raw, "F", mini)
    quadrant[100, 300] = 0
    quadrant[200, 90] = 65535
    mask = np.zeros(mini.ccd_shape, np.uint32)
    mask[5, 70] = DQ.HOT
    made = p.prepare(raw, mini, dq=mask, grow=1)
    width = mini.quadrant_shape[1]
    grown = {(r, c) for r in (199, 200, 201) for c in (89, 90, 91)} | {(100, 300)}
    assert {divmod(int(k), width) for k in made.invalid("F")} == grown
    assert made.invalid("E").size == 0
    assert np.array_equal(made.invalid("F"), np.flatnonzero(made.dq["F"] & np.uint32(DQ.SATURATED | DQ.LOST)))
