"""Bias analysis against simulated frames: read noise and its parts, offsets, spectrum, master."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.analysis.frames_bias_dark import FULL, MINI, bias_frames

from calcamp.analysis.background import box_edges, box_means, fit_surface, interpolate_boxes
from calcamp.analysis.bias import BiasStream, clipped_stack, fit_settling, stack_noise
from calcamp.analysis.spectrum import line_time, read_out_spectrum
from calcamp.detector.geometry import Detector
from support import assert_pulls

SAMPLES = Path(__file__).resolve().parents[2].parent / "shared" / "samples" / "full-size"


def stream(detector, frames, **options) -> BiasStream:
    out = BiasStream(detector, **options)
    for frame in frames:
        out.add(frame)
    return out


# ---- read noise ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("noise", [0.9, 1.2, 1.44])
def test_read_noise_of_rounded_frames_comes_back(noise):
    measured = stream(MINI, bias_frames(MINI, 4, np.random.default_rng(1), noise))
    for region in ("pre", "img", "ove", "pov"):
        parts = measured.noise(region).noise
        assert abs(parts.read_noise - noise) < min(0.01, 4 * parts.read_noise_err) or region != "img"
        assert abs(parts.read_noise - noise) < 4.5 * parts.read_noise_err
        value, err, n = measured.single_frame_noise(region)
        assert abs(value - noise) < 4.5 * err
        assert n > 1000


def pulls_of(seeds, detector=MINI):
    """Pulls of read noise, white and row noise and offset, one list each."""
    names = ("read_noise", "white", "row_noise", "offset", "scan")
    out = {name: [] for name in names}
    for seed in seeds:
        rng = np.random.default_rng([11, seed])
        frames = bias_frames(detector, 6, rng, 1.2, row=0.15, drift=0.0)
        measured = stream(detector, frames)
        parts = measured.noise("img")
        noise = parts.noise
        out["read_noise"].append((noise.read_noise - math.hypot(1.2, 0.15)) / noise.read_noise_err)
        out["white"].append((noise.white - 1.2) / noise.white_err)
        out["row_noise"].append((noise.row_noise - 0.15) / noise.row_noise_err)
        out["offset"] += [(f.offset - 2650.3) / f.offset_err for f in measured.frames]
        out["scan"].append(_scan_pull(measured))
    return out


def _scan_pull(measured):
    noise = measured.noise("pre").noise
    return (noise.read_noise - math.hypot(1.2, 0.15)) / noise.read_noise_err


def test_pulls_of_read_noise_and_offset():
    pulls = pulls_of(range(24))
    for name in ("read_noise", "white", "row_noise", "offset", "scan"):
        assert_pulls(pulls[name], what=name)


@pytest.mark.full
def test_pulls_of_read_noise_and_offset_many():
    pulls = pulls_of(range(100, 340))
    for name in ("read_noise", "white", "row_noise", "offset", "scan"):
        assert abs(np.mean(pulls[name])) < 0.2, name
        assert 0.9 < np.sqrt(np.mean(np.square(pulls[name]))) < 1.1, name


def test_parts_add_up_to_the_total():
    rng = np.random.default_rng(5)
    frames = bias_frames(
        MINI, 10, rng, 1.2, row=0.2, column=0.25, pixel=0.15, drift=0.3, tilt=1.0, settle=2.0
    )
    measured = stream(MINI, frames)
    for region in ("pre", "img", "ove"):
        assert abs(measured.noise(region).closure - 1) < 0.01
    parts = measured.noise("img")
    assert parts.noise.white == pytest.approx(1.2, abs=0.004)
    assert parts.noise.row_noise == pytest.approx(0.2, abs=0.012)
    assert parts.pattern.column == pytest.approx(0.25, abs=0.04)  # rms of 502 drawn columns
    assert parts.pattern.row == pytest.approx(1.0 * 516 / 536 / math.sqrt(12), abs=0.01)
    assert parts.pattern.residual == pytest.approx(0.15, abs=0.02)
    assert parts.drift == pytest.approx(0.3, abs=0.25)


def test_no_pattern_where_there_is_none():
    measured = stream(MINI, bias_frames(MINI, 6, np.random.default_rng(6), 1.2, row=0.3))
    parts = measured.noise("img")
    assert parts.pattern.fixed < 4 * parts.pattern.fixed_err + 0.02
    assert parts.pattern.column < 4 * parts.pattern.column_err + 0.01


def test_cosmic_rays_hot_pixels_and_masks_do_not_move_the_noise():
    rng = np.random.default_rng(7)
    frames = bias_frames(MINI, 5, rng, 1.2)
    for frame in frames:
        frame.reshape(-1)[rng.integers(0, frame.size, 30)] += 900
        frame[100:110, 300] += 5000
    bad = np.zeros(MINI.quadrant_shape, bool)
    bad[:, 200] = True
    for frame in frames:
        frame[:, 200] = rng.integers(0, 60000, MINI.rows)
    measured = stream(MINI, frames, bad=bad)
    noise = measured.noise("img").noise
    assert abs(noise.read_noise - 1.2) < 4.5 * noise.read_noise_err
    assert measured.noise("img").pattern.fixed < 0.06


def test_one_frame_gives_no_pairs_and_says_so():
    measured = stream(MINI, bias_frames(MINI, 1, np.random.default_rng(8)))
    noise = measured.noise("img").noise
    assert math.isnan(noise.read_noise)
    assert noise.flag == "no pair of frames"
    assert measured.frames[0].offset == pytest.approx(2650.3, abs=0.05)


def test_read_without_parallel_overscan():
    frames = bias_frames(MINI, 3, np.random.default_rng(9))
    for frame in frames:
        frame[MINI.image_rows :] = 0
    measured = stream(MINI, frames, vend=2066)
    assert math.isnan(measured.noise("pov").noise.read_noise)
    assert measured.noise("img").noise.read_noise == pytest.approx(1.2, abs=0.005)
    assert len(measured.profiles()["row"][0]) == MINI.image_rows


# ---- offsets, gradients, settling -----------------------------------------------------------------------
def test_offset_drift_and_gradient_of_every_frame():
    rng = np.random.default_rng(10)
    frames = bias_frames(MINI, 3, rng, tilt=0.8)
    shifted = [frames[0], frames[1] + np.uint16(3), frames[2]]
    measured = stream(MINI, shifted)
    offsets = [f.offset for f in measured.frames]
    assert offsets[1] - offsets[0] == pytest.approx(3.0, abs=0.1)
    for f in measured.frames:
        assert abs(f.gradient_rows - 1000 * 0.8 / 536) < 5 * f.gradient_rows_err
        assert abs(f.gradient_columns) < 5 * f.gradient_columns_err


def test_settling_at_the_start_of_a_row():
    measured = stream(MINI, bias_frames(MINI, 6, np.random.default_rng(11), settle=2.0))
    row = measured.settling()["row"]
    assert row.amplitude == pytest.approx(2.0, abs=5 * row.amplitude_err)
    assert row.scale == pytest.approx(6.0, abs=5 * row.scale_err)
    assert measured.settling()["frame"].flag == "not significant"


def test_settling_error_is_right():
    rng = np.random.default_rng(12)
    x = np.arange(51)
    pulls = []
    for _ in range(60):
        y = 1.5 * np.exp(-x / 5) + 0.3 + rng.normal(0, 0.02, x.size)
        fit = fit_settling(x, y, np.full(x.size, 0.02))
        pulls.append((fit.scale - 5) / fit.scale_err)
    assert_pulls(pulls, excess=0.1)


def test_settling_needs_points():
    assert fit_settling(np.arange(3), np.zeros(3), np.ones(3)).flag == "not enough points"


# ---- smooth model ---------------------------------------------------------------------------------------
def test_boxes_cover_the_whole_area():
    edges = box_edges(2066, 8)
    assert edges[0] == 0
    assert edges[-1] == 2066
    assert np.diff(edges).min() > 250


def test_surface_follows_to_the_edges_and_ignores_defects():
    rng = np.random.default_rng(13)
    y, x = np.mgrid[:516, :512]
    truth = 0.8 * (y / 516) ** 2 - 0.5 * (x / 512) + 0.3 * (y / 516) * (x / 512)
    image = (truth + rng.normal(0, 1.2 / 3, truth.shape)).astype(np.float32)
    image[:, 40] += 500
    image[200:203, :] -= 80
    image.reshape(-1)[rng.integers(0, image.size, 500)] = 6e4
    surface = fit_surface(box_means(image, (16, 16)), image.shape, 3)
    assert surface.fit.ok
    error = np.abs(surface.evaluate() - truth)
    assert error.max() < 0.03
    rows, _, columns, _ = surface.slopes()
    assert math.isfinite(rows + columns)


def test_box_errors_are_right():
    image = np.random.default_rng(14).normal(0, 1.2, (1000, 1000)).astype(np.float32)
    boxes = box_means(image, (20, 20))
    assert_pulls(boxes.mean / boxes.err)
    assert abs(interpolate_boxes(boxes, image.shape)).max() < 0.15


# ---- spectrum -------------------------------------------------------------------------------------------
def test_interference_is_found_at_its_frequency_and_noise_gives_none():
    rng = np.random.default_rng(15)
    dt, line = MINI.pixel_time_s, line_time(1000, MINI.columns, MINI.pixel_time_s)
    time = np.arange(MINI.rows)[:, None] * line + np.arange(MINI.columns) * dt
    lines = {4321.5: 0.12, 50.0: 0.2}
    for waves in ({}, lines):
        frames = []
        for _ in range(8):
            frame = rng.normal(2650.3, 1.2, time.shape)
            for frequency, amplitude in waves.items():
                frame += amplitude * np.sin(2 * np.pi * frequency * time + rng.uniform(0, 6.28))
            frames.append(np.rint(frame))
        mean = np.mean(frames, axis=0)
        found = read_out_spectrum([f - mean for f in frames[:3]], 8, dt, line)
        assert len(found.peaks) == len(waves)
        for peak in found.peaks:
            true = min(waves, key=lambda f: abs(f - peak.frequency))
            assert abs(peak.frequency - true) < 3 * peak.frequency_err
            assert abs(peak.amplitude - waves[true]) < 5 * peak.amplitude_err
            assert peak.log10_chance < -3
    high = found.power[found.frequency > 20000]
    assert high.mean() == pytest.approx(2 * (1.2**2 + 1 / 12) * dt, rel=0.03)


def amplitudes_of_waves(frequencies, number, frames, amplitude, seed):
    """Ratio found/true and pull of the amplitude, one wave per set of small frames; NaN if it is not found."""
    rng = np.random.default_rng([28, seed])
    rows, columns, dt = 128, 150, MINI.pixel_time_s
    line = line_time(100, columns, dt, extra=9)
    time = np.arange(rows)[:, None] * line + np.arange(columns) * dt
    out = np.full((2, len(frequencies)), np.nan)
    # the band without the ends where drift and the wave's own mirror image lie
    for k, frequency in enumerate((2 + frequencies * (0.5 * line / dt - 4)) / line):
        phase = rng.uniform(0, 2 * np.pi, (frames, 1, 1))
        wave = 2 * np.pi * frequency * time
        stack = rng.standard_normal((frames, rows, columns), dtype=np.float32) * 1.2 + 2650.3
        stack += amplitude * (np.sin(wave) * np.cos(phase) + np.cos(wave) * np.sin(phase))
        np.rint(stack, out=stack)
        mean = stack.mean(axis=0)
        found = read_out_spectrum((f - mean for f in stack[:number]), frames, dt, line)
        for peak in found.peaks:
            if abs(peak.frequency - frequency) < 3 * found.resolution:
                out[:, k] = peak.amplitude / amplitude, (peak.amplitude - amplitude) / peak.amplitude_err
                break
    return out


@pytest.mark.parametrize(("number", "frames", "amplitude"), [(9, 10, 0.12), (1, 40, 0.3)])
def test_amplitude_of_interference_does_not_depend_on_its_place_between_bins(number, frames, amplitude):
    frequencies = np.random.default_rng(27).uniform(0, 1, 150)
    ratio, pull = amplitudes_of_waves(frequencies, number, frames, amplitude, number)
    missed = np.isnan(ratio)
    assert missed.sum() <= 2
    ratio, pull = ratio[~missed], pull[~missed]
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / math.sqrt(ratio.size)
    assert ratio.std() / math.sqrt(ratio.size) < 0.015
    assert abs(pull.mean()) < 0.25
    assert 0.85 < math.sqrt(np.mean(pull**2)) < 1.15


# ---- master bias ------------------------------------------------------------------------------------------
def test_master_error_plane_and_pattern():
    rng = np.random.default_rng(16)
    truth = rng.normal(0, 0.3, (500, 400))
    frames = [(truth + rng.normal(0, 1.2, truth.shape)).astype(np.float32) for _ in range(10)]
    area = (slice(0, 500), slice(0, 400))
    noise = stack_noise(frames)
    master = clipped_stack(frames, noise, area=area)
    assert noise == pytest.approx(1.2, rel=0.01)
    pull = (master.mean - truth) / master.err
    assert np.sqrt(np.mean(pull**2)) == pytest.approx(1.0, abs=0.05)
    pattern = master.pattern
    assert abs(pattern.fixed - truth.std()) < 4 * pattern.fixed_err
    assert pattern.residual == pytest.approx(truth.std(), abs=0.01)


def test_master_leaves_out_hits_and_counts_frames():
    rng = np.random.default_rng(17)
    frames = [rng.normal(0, 1.2, (200, 200)).astype(np.float32) for _ in range(5)]
    frames[2][50, 60] += 800
    frames[1][50, 61] += 15
    invalid = [np.array([], int)] * 4 + [np.array([7])]
    master = clipped_stack(frames, 1.2, excluded=invalid)
    assert abs(master.mean[50, 60]) < 3
    assert master.count[50, 60] == 4
    assert master.count[0, 7] == 4
    assert master.count.max() == 5
    assert master.err[50, 60] > master.err[10, 10]


def test_master_of_unstable_pixel_has_its_own_error():
    rng = np.random.default_rng(18)
    frames = [rng.normal(0, 1.2, (100, 100)).astype(np.float32) for _ in range(10)]
    for k, frame in enumerate(frames):
        frame[30, 30] += 40 * (k % 2)
    master = clipped_stack(frames, 1.2)
    assert master.unstable.tolist() == [30 * 100 + 30]
    assert master.err[30, 30] > 4


def test_two_frames_and_one_frame():
    frames = [np.random.default_rng(k).normal(0, 1.2, (50, 50)).astype(np.float32) for k in range(2)]
    assert np.allclose(clipped_stack(frames, 1.2).mean, np.mean(frames, axis=0), atol=1.0)
    assert np.allclose(clipped_stack(frames[:1], 1.2).mean, frames[0])


# ---- true sizes -------------------------------------------------------------------------------------------
@pytest.mark.full
def test_full_size_read_noise_reaches_the_statistical_limit():
    measured = stream(FULL, bias_frames(FULL, 10, np.random.default_rng(20), 1.2))
    noise = measured.noise("img").noise
    assert noise.read_noise_err / noise.read_noise < 1.6e-4
    assert abs(noise.read_noise - 1.2) < 4 * noise.read_noise_err


@pytest.mark.samples
def test_sample_offsets_and_read_noise():
    """Full-size darks of an independent generator: prescan offset, its drift and the read noise."""
    if not (SAMPLES / "truth.json").is_file():
        pytest.skip(f"no sample data in {SAMPLES}")
    from calcamp.data.raw import read_raw
    from calcamp.detector.arrays import quadrant_view

    truth = json.loads((SAMPLES / "truth.json").read_text())
    first, last = truth["obsids"]
    for ccd in (1, 2, 3):
        streams = {q: BiasStream(FULL) for q in "EFGH"}
        for obsid in range(first, last + 1):
            raw = read_raw(next((SAMPLES / "12_Mar_19").glob(f"EUC_{obsid}_*CCD{ccd}.fits.fz")), FULL)
            drift = 0.3 * math.sin(2 * math.pi * obsid / 9 + ccd)
            for q in "EFGH":
                known = truth["quadrants"][f"CCD{ccd}"][q]
                frame = streams[q].add(quadrant_view(raw.data, q, FULL))
                assert abs(frame.offset - known["offset_adu"] - drift) < 0.05
                assert abs(frame.ove_minus_pre - truth["overscan_minus_prescan_adu"]) < 0.06
        for q in "EFGH":
            known = truth["quadrants"][f"CCD{ccd}"][q]["read_noise_adu_before_adc"]
            assert streams[q].noise("pre").noise.read_noise == pytest.approx(known, rel=0.01)
            assert streams[q].noise("pov").noise.read_noise == pytest.approx(known, rel=0.01)


def test_detector_of_the_tests_is_the_shipped_one():
    assert Detector.from_dict(MINI.as_dict()) == MINI


@pytest.mark.parametrize("row", [0.0, 0.3])
def test_pulls_of_the_pattern_with_row_noise(row):
    """Errors of the pattern hold the noise of the rows, those that share it by smoothing included."""
    rng = np.random.default_rng(31)
    pulls = {"fixed": [], "row": [], "column": []}
    for _ in range(24):
        shape = (516, 400)
        standing = rng.normal(0, 0.15, (shape[0], 1)) + rng.normal(0, 0.1, shape[1])
        truth = {
            "row": np.var(standing.mean(axis=1), ddof=1),
            "column": np.var(standing.mean(axis=0), ddof=1),
        }
        truth["fixed"] = np.var(standing)
        frames = []
        for _ in range(8):
            smooth = np.convolve(rng.normal(0, 0.25, shape[0] + 30), np.ones(31) / 31, "valid")[:, None]
            frame = 5.3 + standing + rng.normal(0, 1.2, shape) + rng.normal(0, row, (shape[0], 1)) + smooth
            frames.append(frame.astype(np.float32))
        found = clipped_stack(frames, 1.2, area=(slice(0, 516), slice(0, 400))).pattern
        for name, values in pulls.items():
            values.append((getattr(found, name) - math.sqrt(truth[name])) / getattr(found, f"{name}_err"))
    for name, values in pulls.items():
        assert abs(np.mean(values)) < 0.7, name
        assert 0.65 < np.std(values) < 1.45, name


def test_pulls_of_the_offset_model_with_row_noise():
    pulls = []
    for seed in range(16):
        rng = np.random.default_rng([32, seed])
        stream = BiasStream(MINI)
        for frame in bias_frames(MINI, 4, rng, 1.2, row=0.3):
            stream.add(frame)
        surface = stream.surface(3)
        along = [k for k, (_, j) in enumerate(surface.terms) if j == 0]
        pulls.append((surface.fit.parameters / surface.fit.errors)[along])
    assert 0.8 < np.sqrt(np.mean(np.square(pulls))) < 1.25
