"""The chain and its plug-ins against the truth that went in."""

import numpy as np
import pytest

from calcamp.detector.arrays import quadrant_view
from calcamp.simulate import chain
from calcamp.simulate.exposure import Disturbance, Exposure, row_time_s
from calcamp.simulate.plugins import cosmics
from calcamp.simulate.plugins.dark import temperature_factor
from calcamp.simulate.sampling import add_poisson_rows
from calcamp.simulate.scene import Scene, draw_channel, expected_frame, resolve_settings, simulate_frame
from calcamp.simulate.seeds import stream

BIAS = Exposure(1, {"exptime": 0, "rdmode": "fwd_bas"})
REVERSED = Exposure(1, {"exptime": 0, "rdmode": "rwd_bas_v"})
DARK = Exposure(1, {"exptime": 565.0, "rdmode": "fwd_bas"})
QUIET = {"offset.wander": 0.0, "offset.drift": 0.0, "cosmics.density": 0.0}
CLEAN = {**QUIET, "dark.hot": 0, "dark.hot_columns": 0, "dark.warm_fraction": 0.0}


def frames(truth, exposure, detector, n, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([simulate_frame(truth, exposure, detector, rng) for _ in range(n)]).astype(float)


def test_an_exposure_takes_what_the_duration_model_says():
    assert (BIAS.end - BIAS.start).total_seconds() == 94  # 93.5 s
    assert (DARK.end - DARK.start).total_seconds() == 659


def test_one_seed_one_frame_whatever_else_was_simulated(mini):
    first = {ccd: frame.copy() for ccd, frame, _ in Scene(mini, 7).frames(DARK)}
    alone = next(Scene(mini, 7).frames(DARK, (3,)))[1]
    assert np.array_equal(first[3], alone)
    other = next(Scene(mini, 8).frames(DARK, (3,)))[1]
    assert not np.array_equal(first[3], other)
    assert not np.array_equal(first[1], first[2])


def test_seeds_are_keyed_by_purpose():
    draws = {key: stream(3, "frame", *key).integers(2**63) for key in [(1, 1, "E"), (1, 2, "E"), (1, 1, "F")]}
    assert len(set(draws.values())) == 3
    assert stream(3, "a").integers(2**63) == stream(3, "a").integers(2**63)


def test_twelve_channels_are_drawn_inside_their_ranges(mini):
    channels = Scene(mini, 11, offsets={1: {"E": 2600.0}}).channels()
    assert len(channels) == 12
    assert len({c.gain for c in channels}) == 12
    assert all(3.2 <= c.gain <= 3.7 for c in channels)
    assert all(1.1 <= c.read_noise <= 1.35 for c in channels)
    assert abs(channels[0].offset - 2600) <= 15
    assert all(abs(c.offset - 2800) <= 15 for c in channels[1:])


def test_poisson_rows_have_the_right_moments():
    mean = np.array([0.0, 0.001, 0.05, 0.7, 3.0, 7.9])
    out = np.zeros((mean.size, 200_000), dtype=np.float32)
    add_poisson_rows(np.random.default_rng(1), mean, out)
    error = np.sqrt(np.maximum(mean, 1e-9) / out.shape[1])
    assert np.all(np.abs(out.mean(axis=1, dtype=float) - mean) < 4 * error + 1e-12)
    assert out.var(axis=1, dtype=float) == pytest.approx(mean, rel=0.06, abs=1e-6)
    for k, probability in enumerate(np.exp(-3.0) * np.array([1, 3, 4.5, 4.5])):
        assert (out[4] == k).mean() == pytest.approx(probability, abs=0.005)


def test_large_means_take_the_general_draw():
    out = np.zeros((2, 50_000), dtype=np.float32)
    add_poisson_rows(np.random.default_rng(1), np.array([50.0, 1000.0]), out)
    assert out.mean(axis=1) == pytest.approx([50, 1000], rel=0.005)
    assert out.var(axis=1) == pytest.approx([50, 1000], rel=0.03)


def test_read_noise_is_what_the_truth_says(mini):
    truth = draw_channel(1, mini, settings={**CLEAN, "read_noise.sigma": 1.2})
    stack = frames(truth, REVERSED, mini, 6)
    variance = (stack[::2] - stack[1::2]).var() / 2 - 1 / 12
    # 3 pairs of 3.1e5 pixels: relative error of sigma 7e-4
    assert np.sqrt(variance) == pytest.approx(1.2, rel=0.003)


def test_frame_mean_follows_the_expectation_in_every_region(mini):
    truth = draw_channel(2, mini, settings=QUIET)
    stack = frames(truth, BIAS, mini, 8).mean(axis=0)
    expected = expected_frame(truth, BIAS, mini)
    for region in ("pre", "img", "ove", "pov"):
        where = mini.region(region)
        assert (stack[where] - expected[where]).mean() == pytest.approx(0, abs=0.03), region
    rows, columns = mini.region("img")
    assert np.abs((stack - expected)[rows, columns].mean(axis=0)).max() < 0.12
    assert np.abs((stack - expected)[rows, columns].mean(axis=1)).max() < 0.12


def test_reversed_clocks_bring_no_charge(mini):
    hot = {**QUIET, "dark.rate_e_h": 5000.0, "readout_dark.spurious_e": 5.0}
    truth = draw_channel(3, mini, settings=hot).changed("offset", reversed_step=0.0)
    img, pre = mini.region("img"), mini.region("pre")
    forward, backward = frames(truth, BIAS, mini, 1)[0], frames(truth, REVERSED, mini, 1)[0]
    assert backward[img].mean() - backward[pre].mean() == pytest.approx(
        expected_frame(truth, REVERSED, mini)[img].mean() - expected_frame(truth, REVERSED, mini)[pre].mean(),
        abs=0.05,
    )
    assert forward[img].mean() > backward[img].mean() + 0.5


def test_dark_current_and_shot_noise(mini):
    truth = draw_channel(4, mini, settings={**CLEAN, "dark.rate_e_h": 4000.0, "structure.scale": 0.0})
    stack = frames(truth, DARK, mini, 4)
    img, ove = mini.region("img"), mini.region("ove")
    rows = np.arange(mini.image_rows)
    readout = row_time_s(DARK.keys, mini) * (rows + 1)
    rate = 4000 / 3600
    spurious = truth["readout_dark"]["spurious_e_per_transfer"] * (rows + 1)
    electrons = rate * (565 + readout) + spurious
    level = (stack[(slice(None), *img)].mean(axis=(0, 2)) - stack[(slice(None), *ove)].mean()) * truth.gain
    assert level.mean() == pytest.approx(electrons.mean(), rel=2e-3)
    assert np.polyfit(rows, level, 1)[0] == pytest.approx(np.polyfit(rows, electrons, 1)[0], rel=0.1)
    variance = ((stack[0] - stack[1])[img]).var() / 2 - truth.read_noise**2 - 1 / 12
    assert variance * truth.gain**2 == pytest.approx(electrons.mean(), rel=0.02)


def test_truth_states_mean_dark_current_with_warm_pixels(mini):
    truth = draw_channel(
        5, mini, settings={**QUIET, "dark.rate_e_h": 900.0, "dark.hot": 0, "dark.hot_columns": 0}
    )
    rate = np.full(mini.image_shape, truth["dark"]["base_e_s"])
    rate[truth["dark"]["warm_row"], truth["dark"]["warm_column"]] += truth["dark"]["warm_e_s"]
    assert truth.dark_e_s == pytest.approx(rate.mean(), rel=1e-6)
    assert truth["dark"]["dsnu_e_s"] == pytest.approx(rate.std(), rel=1e-5)


def test_dark_rate_follows_temperature(mini):
    assert temperature_factor(153.15) == 1.0
    assert temperature_factor(163.15) == pytest.approx(20.5, rel=0.02)
    truth = draw_channel(4, mini, settings={**CLEAN, "dark.rate_e_h": 400.0})
    warm = Exposure(1, DARK.keys, temperature_K={1: 158.15})
    img, pre = mini.region("img"), mini.region("pre")
    cold_step, warm_step = (
        (lambda f: f[img].mean() - f[pre].mean())(expected_frame(truth, e, mini)) for e in (DARK, warm)
    )
    structure = expected_frame(truth, REVERSED, mini)
    step = structure[img].mean() - structure[pre].mean()
    # spurious charge does not follow: it is small here
    assert (warm_step - step) / (cold_step - step) == pytest.approx(temperature_factor(158.15), rel=0.01)


def test_hot_pixels_and_bright_columns_have_their_rates(mini):
    truth = draw_channel(6, mini, settings={**QUIET, "dark.rate_e_h": 0.0, "dark.hot": 25})
    img = mini.region("img", trimmed=False)
    mean = frames(truth, DARK, mini, 8).mean(axis=0)[img] * truth.gain
    background = expected_frame(truth, REVERSED, mini)[img] * truth.gain
    excess = mean - background - (truth["offset"]["reversed_step"] * -truth.gain)
    dark = truth["dark"]
    measured = excess[dark["hot_row"], dark["hot_column"]]
    expected = dark["hot_e_s"] * 565
    isolated = ~np.isin(dark["hot_column"], dark["bright_column"])
    pull = (measured - expected)[isolated] / np.sqrt((expected[isolated] + 20) / 8)
    assert np.abs(pull.mean()) < 1.0
    assert pull.std() < 2.0  # trails and spurious charge add a few electrons
    column, first, rate = (dark[k][0] for k in ("bright_column", "bright_first_row", "bright_e_s"))
    lower, upper = excess[: max(first - 5, 1), column], excess[first:, column]
    assert np.median(upper) > rate * 565
    assert np.abs(np.median(lower)) < 5


def test_a_very_hot_pixel_leaves_a_trail_in_rows_read_later(mini):
    truth = draw_channel(
        6, mini, settings={**QUIET, "dark.hot": 1, "dark.hot_columns": 0, "dark.warm_fraction": 0.0}
    )
    truth = truth.changed(
        "dark", hot_row=np.array([200]), hot_column=np.array([100]), hot_e_s=np.array([300.0])
    )
    expected = expected_frame(truth, BIAS, mini)
    column = mini.prescan + 100
    step = (expected[201:300, column] - expected[201:300, column + 2]).mean() - (
        expected[100:199, column] - expected[100:199, column + 2]
    ).mean()
    assert step * truth.gain == pytest.approx(300 * row_time_s(BIAS.keys, mini), rel=0.02)
    drawn = frames(truth, BIAS, mini, 4).mean(axis=0)
    assert (drawn - expected)[201:500, column].mean() == pytest.approx(0, abs=0.3)


def test_telegraph_pixels_change_between_frames(mini):
    truth = draw_channel(6, mini, settings={**QUIET, "dark.rts": 20})
    stack = frames(truth, DARK, mini, 8)[(slice(None), *mini.region("img", trimmed=False))]
    dark = truth["dark"]
    course = stack[:, dark["rts_row"], dark["rts_column"]]
    step = (dark["rts_high_e_s"] - dark["rts_low_e_s"]) * 565 / truth.gain
    jumps = np.ptp(course, axis=0) > 0.6 * step
    assert jumps.sum() >= 17


def test_cosmic_rays_arrive_at_their_rate_and_follow_the_tables(mini):
    rng = np.random.default_rng(1)
    rows, columns, charge = cosmics.draw_tracks(rng, 4000, (516, 512))
    assert rows.min() >= 0
    assert rows.max() < 516
    assert columns.max() < 512
    total = charge.sum() / 4000
    table = cosmics._CHARGE
    fractions = np.linspace(0, 1, 200001)
    assert total == pytest.approx(np.exp(np.interp(fractions, table[0], np.log(table[1]))).mean(), rel=0.15)
    truth = draw_channel(6, mini, settings={**CLEAN, "cosmics.density": 2e-4})
    counts = []
    for seed in range(8):
        state = chain.State(truth, DARK, mini, random=lambda name, seed=seed: stream(seed, name))
        next(chain.run([state]))
        counts.append(state.record["cosmics"])
    expected = 2e-4 * 516 * 512
    assert np.mean(counts) == pytest.approx(expected, abs=4 * np.sqrt(expected / 8) + 1)


def test_drift_moves_the_whole_frame_and_is_recorded(mini):
    truth = draw_channel(6, mini, settings=CLEAN)
    late = Exposure(1, BIAS.keys, elapsed_s=3600.0)
    course = truth["offset"]
    course = {**course, "slope_adu_h": 2.0, "swing_adu": 0.0}
    truth = truth.changed("offset", **course)
    pre = mini.region("pre")
    difference = expected_frame(truth, late, mini)[pre].mean() - expected_frame(truth, BIAS, mini)[pre].mean()
    assert difference == pytest.approx(2.0, abs=1e-3)
    state = chain.State(truth, late, mini, random=lambda name: stream(1, name))
    frame = next(chain.run([state])).counts
    structure = (
        expected_frame(truth, BIAS, mini)[pre].mean()
        - expected_frame(truth.changed("structure", **_flat(truth)), BIAS, mini)[pre].mean()
    )
    assert frame[pre].mean() - structure == pytest.approx(state.record["offset"], abs=0.06)


def _flat(truth):
    zero = {key: value * 0 for key, value in truth["structure"].items()}
    keep = ("frame_settling_rows", "line_settling_columns", "bump_width")
    return {**zero, **{key: truth["structure"][key] for key in keep}}


def test_row_noise_and_pickup_on_request(mini):
    truth = draw_channel(6, mini, settings={**CLEAN, "row_noise.sigma": 2.0, "structure.scale": 0.0})
    rows = frames(truth, REVERSED, mini, 1)[0].mean(axis=1)
    assert rows.std() == pytest.approx(2.0, rel=0.12)
    truth = draw_channel(
        6,
        mini,
        settings={**CLEAN, "pickup.amplitude": 1.0, "pickup.frequency_hz": 2500.0, "structure.scale": 0.0},
    )
    frame = frames(truth, REVERSED, mini, 1)[0]
    seconds = row_time_s(REVERSED.keys, mini) * np.arange(mini.rows)[:, None]
    seconds = seconds + mini.pixel_time_s * np.arange(mini.columns)
    amplitude = 2 * np.abs(((frame - frame.mean()) * np.exp(-2j * np.pi * 2500.0 * seconds)).mean())
    assert amplitude == pytest.approx(1.0, abs=0.02)


def test_rows_outside_the_window_are_zero(mini):
    truth = draw_channel(6, mini)
    short = Exposure(1, {"exptime": 0, "vstart": 0, "vend": 100})
    frame = frames(truth, short, mini, 1)[0]
    assert frame[:100].min() > 2000
    assert not frame[100:].any()
    image_only = frames(truth, Exposure(1, {"exptime": 0, "vstart": 10, "vend": 2066}), mini, 1)[0]
    assert not image_only[:10].any()
    assert image_only[10:516].min() > 2000
    assert not image_only[516:].any()


def test_converter_rounds_clips_and_sticks(mini):
    truth = draw_channel(6, mini, settings={**QUIET, "read_noise.sigma": 0.0, "structure.scale": 0.0})
    truth = truth.changed("offset", offset=100.4, reversed_step=0.0)
    assert np.all(frames(truth, REVERSED, mini, 1) == 100)
    rail = truth.changed("offset", offset=70000.0)
    assert np.all(frames(rail, REVERSED, mini, 1) == 65535)
    assert np.all(frames(truth.changed("offset", offset=-5.0), REVERSED, mini, 1) == 0)
    stuck = truth.changed("converter", stuck_high=8, stuck_low=4)
    assert np.all(frames(stuck, REVERSED, mini, 1) == (100 | 8) & ~4)


@pytest.mark.parametrize(
    ("kind", "value", "check"),
    [
        ("offset_step", 60.0, lambda bad, good: abs(np.median(bad - good) - 60) < 1),
        ("noisy_frame", 4.0, lambda bad, good: 3 < bad[:, 25:45].std() / good[:, 25:45].std() < 4.5),
        ("dead_quadrant", 1.0, lambda bad, good: np.ptp(bad) == 0),
        ("zero_frame", 1.0, lambda bad, good: not bad.any()),
        ("light_leak", 5.0, lambda bad, good: np.median(bad[:50, 100:500] - good[:50, 100:500]) > 300),
    ],
)
def test_disturbances_reach_only_their_quadrant(mini, kind, value, check):
    scene = Scene(mini, 5, settings=CLEAN)
    disturbed = Exposure(1, DARK.keys, disturbances=(Disturbance(kind, value, 2, "F"),))
    good = {ccd: frame.copy() for ccd, frame, _ in scene.frames(DARK)}
    bad = {ccd: frame.copy() for ccd, frame, _ in scene.frames(disturbed)}
    for ccd in (1, 2, 3):
        for quadrant in "EFGH":
            a = quadrant_view(bad[ccd], quadrant, mini).astype(float)
            b = quadrant_view(good[ccd], quadrant, mini).astype(float)
            if (ccd, quadrant) == (2, "F"):
                assert check(a, b)
            else:
                assert np.array_equal(a, b)


def test_settings_are_checked():
    assert resolve_settings({"dark.rts": 5})["dark"]["rts"] == 5
    with pytest.raises(Exception, match=r"no setting 'dark\.colour'"):
        resolve_settings({"dark.colour": 1})


def test_what_cannot_be_simulated_is_known():
    flat = Exposure(1, {"shuttr": 1, "exptime": 3.0, "chinj": 1})
    assert chain.features(flat) == {"light", "inject"}
    assert chain.missing_features(BIAS) == set()


def test_a_plugin_of_scope_exposure_sees_all_channels(mini, monkeypatch):
    class Mix(chain.Plugin):
        name, stage, scope = "mix", "crosstalk", "exposure"

        def apply(self, states):
            states[0].signal[300, 300] += 1000 * len(states)

    order = sorted([*chain.plugins(), Mix()], key=lambda p: (chain.STAGES.index(p.stage), p.order, p.name))
    monkeypatch.setattr(chain, "plugins", lambda: tuple(order))
    scene = Scene(mini, 5)
    plain = [frame.copy() for _, frame, _ in Scene(mini, 5).frames(BIAS)]
    monkeypatch.undo()
    reference = [frame.copy() for _, frame, _ in scene.frames(BIAS)]
    difference = [np.argwhere(a != b) for a, b in zip(plain, reference, strict=True)]
    assert len(difference[0]) == 1
    assert not len(difference[1])


def test_twenty_four_frames_scatter_about_the_expectation_as_noise_says(mini):
    """Level and variance of an image area, as pulls: the chain adds nothing that the truth does not name."""
    levels, variances = [], []
    settings = {**CLEAN, "dark.rate_e_h": 60.0}
    for seed in range(24):
        truth = draw_channel(seed, mini, settings=settings)
        frame = frames(truth, DARK, mini, 1, seed)[0]
        difference = (frame - expected_frame(truth, DARK, mini))[mini.region("img")]
        electrons = (expected_frame(truth, DARK, mini) - expected_frame(truth, REVERSED, mini))[
            mini.region("img")
        ]
        shot = (electrons.mean() + truth["offset"]["reversed_step"]) / truth.gain
        variance = truth.read_noise**2 + 1 / 12 + shot
        n = difference.size
        levels.append(difference.mean() / np.sqrt(variance / n))
        variances.append((difference.var() / variance - 1) / np.sqrt(2 / n))
    for pulls in (levels, variances):  # gates passed in 99.9 % of runs by 24 standard normal numbers
        assert abs(np.mean(pulls)) < 0.71
        assert 0.55 < np.sqrt(np.mean(np.square(pulls))) < 1.49
