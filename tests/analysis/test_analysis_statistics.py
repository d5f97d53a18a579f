"""Moments of integer and float data against simulated truth."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calcamp.analysis import statistics as s
from support import assert_coverage, assert_pulls, pull_gates


def rounded(rng, mean, std, shape):
    return np.rint(rng.normal(mean, std, shape)).astype(np.uint16)


# ---- the gates themselves -----------------------------------------------------------------------------


def test_gates_pass_a_correct_estimator_in_999_of_1000_runs(rng):
    mean, low, high = pull_gates(24)
    pulls = rng.normal(size=(40_000, 24))
    rms = np.sqrt(np.square(pulls).mean(axis=1))
    passed = (np.abs(pulls.mean(axis=1)) <= mean) & (rms >= low) & (rms <= high)
    assert passed.mean() == pytest.approx(0.999, abs=5e-4)


def test_gates_stop_a_biased_estimator_and_wrong_errors(rng):
    pulls = rng.normal(size=240)
    assert_pulls(pulls)
    for wrong in (pulls + 0.5, 1.3 * pulls, 0.7 * pulls, np.append(pulls, np.nan)):
        with pytest.raises(AssertionError):
            assert_pulls(wrong)


# ---- integers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [3.0, 4.0, 5.0])
@pytest.mark.parametrize("std", [0.3, 0.5, 0.7, 0.9, 1.2, 1.44, 2.0, 5.0])
def test_noise_and_level_of_rounded_pixels(rng, std, sigma):
    """Bias within the error and pulls of width 1, for any phase of the level in the rounding step."""
    means = 2700 + rng.uniform(size=60)
    found = [s.clipped(rounded(rng, mean, std, 21_000), sigma) for mean in means]
    # A clip at 3 sigma leaves too few values besides the main two to measure noise of 0.3 steps everywhere.
    sure = [not f.is_limit for f in found]
    assert all(sure) or (std, sigma) == (0.3, 3.0)
    found, means = [f for f in found if not f.is_limit], means[sure]
    assert_pulls(
        [(f.mean - m) / f.mean_err for f, m in zip(found, means, strict=True)], what="mean", excess=0.05
    )
    assert_pulls([(f.std - std) / f.std_err for f in found], what="std", excess=0.05)


def test_read_noise_of_1_20_is_1_20(rng):
    """Acceptance: 1.20 +- 0.01 where the predecessor finds 1.234 and a scaled MAD 1.483."""
    for mean in (2700.0, 2700.25, 2700.5):
        pixels = rounded(rng, mean, 1.20, (516, 512))
        moments = s.histogram_moments(pixels)
        assert moments.clipped.std == pytest.approx(1.20, abs=0.01)
        assert moments.plain_std == pytest.approx(1.234, abs=0.01)
        assert s.robust_std(pixels) == pytest.approx(1.20, abs=0.02)


@pytest.mark.parametrize("std", [0.3, 0.45, 0.9, 1.2, 1.44, 5.0, 60.0])
def test_robust_spread_is_valid_on_integers(rng, std):
    values = np.array([s.robust_std(rounded(rng, 2700 + rng.uniform(), std, 20_000)) for _ in range(20)])
    assert values.mean() == pytest.approx(std, rel=0.02)
    assert values.std() < 0.05 * std


@pytest.mark.parametrize("share", [1e-4, 1e-3, 1e-2])
def test_cosmic_rays_do_not_change_the_noise(rng, share):
    pixels = rounded(rng, 2700.3, 1.2, (516, 512))
    hit = rng.random(pixels.shape) < share
    pixels[hit] += rng.integers(20, 5000, int(hit.sum())).astype(np.uint16)
    result = s.clipped(pixels)
    assert result.std == pytest.approx(1.2, abs=5 * result.std_err + 1e-3)
    assert result.mean == pytest.approx(2700.3, abs=5 * result.mean_err)
    assert result.n_clipped == pytest.approx(int(hit.sum()), abs=3)
    assert result.clipped_fraction == pytest.approx(hit.mean(), abs=1e-4)


def test_dark_of_0_2_adu_is_seen(rng):
    """Acceptance: medians of integers cannot see it."""
    found = []
    for _ in range(4):
        offset = 2700 + rng.uniform()
        image = s.clipped(rounded(rng, offset + 0.2, 1.2, (516, 512)))
        scan = s.clipped(rounded(rng, offset, 1.2, 21_000))
        found.append(image.mean - scan.mean)
    assert np.mean(found) == pytest.approx(0.2, abs=0.02)


def test_noise_too_small_to_see_is_a_limit(rng):
    constant = s.clipped(np.full(10_000, 2700, np.uint16))
    assert constant.is_limit
    assert constant.mean == 2700
    assert 0.05 < constant.std < 0.3
    assert math.isnan(constant.std_err)
    for std in (0.05, 0.1, 0.15):
        for mean in 2700 + rng.uniform(size=20):
            result = s.clipped(rounded(rng, mean, std, 20_000))
            assert not result.is_limit or result.std >= 0.99 * std
            assert abs(result.mean - mean) < 5 * result.mean_err


def test_empty_and_tiny_input():
    assert s.clipped(np.array([], np.uint16)).n == 0
    assert math.isnan(s.clipped(np.array([])).mean)
    one = s.clipped(np.array([7], np.uint16))
    assert (one.mean, one.n) == (7.0, 1)
    assert math.isnan(one.std)
    assert s.histogram_moments(np.array([], np.uint16)).n == 0
    assert math.isnan(s.clipped(np.array([np.nan, np.nan])).mean)
    assert s.clipped(np.array([1, 2], np.uint16), mask=np.array([True, True])).n == 0


def test_histogram_equals_numpy(rng):
    values = rng.integers(0, 65536, (300, 501)).astype(np.uint16)[::-1, ::-1]
    mask = rng.random(values.shape) < 0.1
    assert np.array_equal(s.histogram(values), np.bincount(values.ravel(), minlength=65536))
    assert np.array_equal(s.histogram(values, mask), np.bincount(values[~mask], minlength=65536))
    moments = s.histogram_moments(values, percentiles=(1, 50, 99))
    assert moments.median == np.median(values)
    assert moments.plain_mean == pytest.approx(values.mean())
    assert moments.plain_std == pytest.approx(values.std())
    assert (moments.minimum, moments.maximum) == (values.min(), values.max())
    wanted = [np.percentile(values, p, method="inverted_cdf") for p in (1, 50, 99)]
    assert moments.percentiles == tuple(wanted)
    assert s.histogram_moments(s.histogram(values)).median == moments.median
    with pytest.raises(TypeError):
        s.histogram(values.astype(np.int32))
    with pytest.raises(ValueError, match="65536 counts"):
        s.histogram_moments(values.astype(float))


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2, 0.3, 0.5, 1.2, 5.0])
def test_rounding_is_removed_from_differences(rng, std):
    """Two rounded frames whose levels are spread over the step; from no noise to much."""
    level = rng.uniform(100, 110, 200_000)
    first, second = (np.rint(level + rng.normal(0, std, level.size)).astype(np.int32) for _ in range(2))
    difference = first - second
    result = math.sqrt(s.remove_quantisation(float(np.mean(np.square(difference))), 2) / 2)
    assert result == pytest.approx(std, rel=0.015)
    if std >= 0.5:
        found = s.clipped(difference, rounded=2)
        assert found.std / math.sqrt(2) == pytest.approx(std, abs=4 * found.std_err)


def test_remove_quantisation_of_arrays_never_goes_below_zero():
    values = s.remove_quantisation(np.array([0.0, 0.05, 1.0]))
    assert np.all(values >= 0)
    assert values[2] == pytest.approx(11 / 12)
    assert s.remove_quantisation(0.0, 2) == pytest.approx(0.0, abs=1e-9)


# ---- floats and axes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [3.0, 5.0])
def test_pulls_of_float_values(rng, sigma):
    found = [s.clipped(rng.normal(10, 1.7, 3000), sigma) for _ in range(240)]
    assert_pulls([(f.mean - 10) / f.mean_err for f in found], what="mean")
    assert_pulls([(f.std - 1.7) / f.std_err for f in found], what="std", bias=0.05)


@pytest.mark.parametrize("sigma", [3.0, 5.0])
def test_pulls_along_an_axis(rng, sigma):
    found = s.clipped(rng.normal(10, 1.7, (40, 8, 500)), sigma, axis=2)
    assert found.mean.shape == (40, 8)
    assert_pulls((found.mean - 10) / found.mean_err, what="mean")
    assert_pulls((found.std - 1.7) / found.std_err, what="std", bias=0.1)
    whole = s.clipped(rng.normal(10, 1.7, (240, 30, 20)), sigma, axis=(1, 2))
    assert_pulls((whole.std - 1.7) / whole.std_err, what="std over two axes", bias=0.1)


def test_axis_and_flat_agree(rng):
    values = rng.normal(5, 2, (6, 4000))
    values[:, ::100] += 500
    lines = s.clipped(values, axis=1)
    for row, mean, std, n in zip(values, lines.mean, lines.std, lines.n, strict=True):
        one = s.clipped(row)
        assert (one.mean, one.std, one.n) == (pytest.approx(mean), pytest.approx(std), n)


def test_known_scale_finds_outliers_among_few(rng):
    """Of four frames one pixel is hit: the sample's own spread could never show it."""
    stack = rng.normal(0, 1.2, (4, 5000))
    stack[2, ::10] += 400
    result = s.clipped(stack, 5, axis=0, scale=1.2)
    assert np.array_equal(result.n[::10], np.full(500, 3))
    assert result.n.mean() == pytest.approx(3.9, abs=0.01)
    assert_pulls(result.mean / result.mean_err)


def test_values_that_are_not_finite_are_left_out(rng):
    values = rng.normal(0, 1, (50, 60))
    values[3, 4], values[10] = np.inf, np.nan
    mask = np.zeros(values.shape, bool)
    mask[:, 7] = True
    flat = s.clipped(values, mask=mask)
    assert flat.n + flat.n_clipped == 50 * 60 - 60 - 1 - 50 + 1
    lines = s.clipped(values, axis=1, mask=mask)
    assert lines.n[10] == 0
    assert math.isnan(lines.mean[10])
    assert lines.n[0] == 59


def test_large_float32_image_with_mask(rng):
    image = rng.normal(1000, 30, (516, 512)).astype(np.float32)
    mask = rng.random(image.shape) < 0.05
    image[mask] = 1e6
    result = s.clipped(image, mask=mask)
    assert (result.mean - 1000) / result.mean_err == pytest.approx(0, abs=4)
    assert (result.std - 30) / result.std_err == pytest.approx(0, abs=4)
    assert result.n == pytest.approx(np.count_nonzero(~mask), abs=5)


def test_clip_factors_are_those_of_the_literature():
    assert s.clip_factors(3.0)[0] == pytest.approx(0.98658, abs=1e-5)
    assert s.clip_factors(4.0)[0] == pytest.approx(0.99946, abs=1e-5)
    assert s.clip_factors(5.5)[0] == pytest.approx(1, abs=2e-6)


# ---- properties -----------------------------------------------------------------------------------------

integers = hnp.arrays(np.uint16, st.integers(3, 300), elements=st.integers(0, 2000))
floats = hnp.arrays(np.float64, st.integers(3, 200), elements=st.floats(-1000, 1000, width=32))


def same(a: s.Clipped, b: s.Clipped, shift: float = 0.0, atol: float = 1e-6) -> None:
    assert b.mean - shift == pytest.approx(a.mean, abs=atol, rel=1e-6, nan_ok=True)
    for name in ("mean_err", "std", "std_err"):
        assert getattr(b, name) == pytest.approx(getattr(a, name), abs=atol, rel=1e-4, nan_ok=True)
    assert (a.n, a.n_clipped) == (b.n, b.n_clipped)


@given(integers, st.integers(1, 60_000), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_integers_permutation_and_shift(values, shift, random):
    result = s.clipped(values)
    order = list(range(len(values)))
    random.shuffle(order)
    same(result, s.clipped(values[order]))
    same(result, s.clipped((values + np.uint16(shift)).astype(np.uint16)), shift, atol=1e-5)
    same(result, s.clipped(values.astype(np.int64) - 5000), -5000, atol=1e-5)


@given(integers, st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_masked_values_do_not_matter(values, seed):
    generator = np.random.default_rng(seed)
    mask = generator.random(len(values)) < 0.3
    other = np.where(mask, generator.integers(0, 65536, len(values)), values).astype(np.uint16)
    same(s.clipped(values, mask=mask), s.clipped(other, mask=mask))
    same(s.clipped(values[~mask]), s.clipped(values, mask=mask))


@given(floats, st.floats(-1e3, 1e3), st.randoms(use_true_random=False))
@settings(max_examples=150)
def test_floats_permutation_and_finite_results(values, shift, random):
    result = s.clipped(values)
    order = list(range(len(values)))
    random.shuffle(order)
    same(result, s.clipped(values[order]))
    assert result.n + result.n_clipped == len(values)
    assert values.min() - 1e-6 <= result.mean <= values.max() + 1e-6
    moved = s.clipped(values + shift)
    # Rounding of the shifted values may move one that lies on the clip.
    if (moved.n, moved.n_clipped) == (result.n, result.n_clipped):
        assert moved.mean - shift == pytest.approx(result.mean, abs=1e-6)


@pytest.mark.parametrize("level", [1e-9, 1e-6, 1.0])
def test_outliers_far_above_the_noise_do_not_cost_its_digits(rng, level):
    """The first window holds outliers 1e9 times the spread; the order of the values must not matter."""
    values = np.concatenate([np.zeros(4), [83.0, 52.0, 1.0], np.full(76, level)])
    expected = s.clipped(values[values <= level] if level < 1 else values)
    for _ in range(50):
        found = s.clipped(rng.permutation(values))
        assert (found.n, found.mean) == (expected.n, pytest.approx(expected.mean, rel=1e-9))
        assert found.std == pytest.approx(expected.std, rel=1e-6)


# ---- limits, jackknife, running mean, pairs -----------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.68, 0.9, 0.95])
@pytest.mark.parametrize("truth", [0.0, 0.3, 1.0, 1.7, 3.0, 6.0])
def test_interval_covers_every_truth(rng, truth, confidence):
    """Proven coverage, also where the truth is zero."""
    limits = [s.upper_limit(x, 2.0, confidence) for x in 2.0 * rng.normal(truth, 1, 8000)]
    assert_coverage([limit.low <= 2.0 * truth <= limit.high for limit in limits], confidence)


@pytest.mark.parametrize(
    ("confidence", "x", "low", "high"),
    [
        (0.9, -3, 0, 0.26),
        (0.9, -1, 0, 0.81),
        (0.9, 0, 0, 1.64),
        (0.9, 2, 0.58, 3.64),
        (0.95, -2, 0, 0.62),
        (0.95, 1, 0, 2.96),
    ],
)
def test_interval_matches_the_published_table(confidence, x, low, high):
    """Feldman & Cousins 1998, table X."""
    found = s.upper_limit(x, 1.0, confidence)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    assert found.is_limit == (low == 0)


def test_cls_limit_covers_at_least(rng):
    for truth in (0.2, 1.0, 3.0):
        high = np.array([s.upper_limit(x, 1.0, method="cls").high for x in rng.normal(truth, 1, 4000)])
        assert (high >= truth).mean() >= 0.945
    assert s.upper_limit(-9.0, 1.0, method="cls").high > 0
    assert s.upper_limit(8.0, 1.0, method="cls").high == pytest.approx(8 + 1.645, abs=0.01)


def test_limit_without_measure_is_not_a_number():
    for value, err in ((math.nan, 1), (1, math.nan), (1, 0.0)):
        assert math.isnan(s.upper_limit(value, err).high)
    with pytest.raises(ValueError, match="fc or cls"):
        s.upper_limit(1, 1, method="bayes")


def test_jackknife_of_a_ratio(rng):
    truth = 2.0
    samples = [np.column_stack([rng.normal(10, 1, 12), rng.normal(5, 0.5, 12)]) for _ in range(600)]
    found = [s.jackknife(lambda x: x[:, 0].mean() / x[:, 1].mean(), sample) for sample in samples]
    # Student's t with 11 degrees of freedom is wider than normal by sqrt(11/9).
    assert_pulls([(v - truth) / e / math.sqrt(11 / 9) for v, e in found], excess=0.05)
    value, error = s.jackknife(lambda x: x.mean(axis=0), samples[0])
    assert np.allclose(value, samples[0].mean(axis=0))
    assert np.allclose(error, samples[0].std(axis=0, ddof=1) / math.sqrt(12))


def test_running_mean(rng):
    line = np.arange(200) * 0.1
    mean, weight = s.running_mean(line, 11)
    assert np.allclose(mean, line)  # a slope is not bent, not even at the ends
    assert weight[0] == 1
    assert weight[100] == 11
    gaps = line.copy()
    gaps[50:60] = np.nan
    mean, _ = s.running_mean(gaps, 11)
    assert np.isfinite(mean).all()
    mean, _ = s.running_mean(gaps, 5)
    assert np.isnan(mean[55])
    noise = rng.normal(1000, 1, 20_000)
    assert s.running_mean(noise, 31)[0][15:-15].std() == pytest.approx(1 / math.sqrt(31), rel=0.1)
    with pytest.raises(ValueError, match="odd"):
        s.running_mean(line, 10)


def test_pairs_hold_two_frames_at_a_time():
    assert list(s.pairs(range(5))) == [(0, 1), (2, 3)]
    assert list(s.pairs(range(4), disjoint=False)) == [(0, 1), (1, 2), (2, 3)]
    assert list(s.pairs([])) == []
    taken = []

    def frames():
        for number in range(100):
            taken.append(number)
            yield number

    next(s.pairs(frames()))
    assert taken == [0, 1]


def test_every_result_field_has_a_unit():
    for kind in (s.Clipped, s.Moments, s.Fit, s.Limit, s.Covariances, s.Tiles):
        for field in dataclasses.fields(kind):
            assert "unit" in field.metadata, (kind, field.name)
            assert field.metadata["description"]


@pytest.mark.parametrize("seed", [2, 11])
def test_nearly_all_values_at_full_scale_have_a_mean(seed):
    """A saturated frame with a few darker pixels, whose quantiles lead the first window astray."""
    counts = np.zeros(65536, np.int64)
    counts[65535] = 258_832
    darker = 65534 - np.random.default_rng(seed).exponential(600, 200)
    np.add.at(counts, darker.astype(int), 1)
    found = s.histogram_moments(counts, 5.0).clipped
    assert found.mean == pytest.approx(65535, abs=0.5)
    assert found.n == 258_832
