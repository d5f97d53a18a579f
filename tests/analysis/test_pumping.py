"""Trap pumping against traps that are clocked step by step: detection, amplitudes, emission times, species."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from tests.support import assert_pulls

from calcamp.analysis import pumping
from calcamp.config.lookup import load_clocks
from calcamp.detector.geometry import half_of
from calcamp.simulate.plugins import pumping as physics

TIMES = np.array([50.0, 200, 1000, 2000, 4000, 8000])
CYCLES, GAIN, LEVEL, NOISE = 5000, 3.5, 44000.0, 88.0  # e-/ADU, e-, e- per pixel
CLOCKS = load_clocks("default").table("parallel")


def response(mode, sign):
    for position, terms in CLOCKS.signatures("half_EF").items():
        if mode in terms and terms[mode].sign == sign:
            t = terms[mode]
            return pumping.Response(t.begin, t.end, t.hold, t.sign, t.pair, position)
    raise AssertionError


def frames(rng, traps, mode=123, shape=(300, 256), half="half_EF"):
    """Frames of one mode, ADU: pattern of columns, gradient, traps clocked by the simulator."""
    pattern = 1 + 0.03 * rng.normal(size=shape[1])
    out = []
    for time in TIMES:
        charge = LEVEL * pattern[None, :] * (1 + 0.01 * np.arange(shape[0])[:, None] / shape[0])
        charge = charge + NOISE * rng.normal(size=shape)
        gain = physics.moved(
            CLOCKS,
            mode,
            half,
            traps["position"],
            time,
            traps["tau"],
            traps["tau_c"],
            traps["pc"],
            CYCLES,
        )
        gain = physics.fluctuate(rng, gain, CYCLES)
        rows = traps["row"][:, None] + np.arange(-3, 4)
        np.add.at(charge, (rows, np.broadcast_to(traps["column"][:, None], rows.shape)), gain)
        out.append((charge / GAIN + 0.3 * rng.normal(size=(shape[0], 1))).astype(np.float32))
    return out


def draw(rng, number, shape=(300, 256), tau=(100, 10000), pc=(0.6, 1.0)):
    sides = np.array([3.25, 0.75])
    return {
        "row": rng.integers(5, shape[0] - 5, number),
        "column": rng.integers(0, shape[1], number),
        "position": rng.choice(sides, number),
        "tau": np.exp(rng.uniform(*np.log(tau), number)),
        "tau_c": np.full(number, 2.0),
        "pc": rng.uniform(*pc, number),
    }


def search(images, mask=None, cut=None):
    stack = [pumping.half_differences(image, mask) for image in images]
    noise = np.array([pumping.noise_of(half) for half in stack])
    scale = pumping.column_noise(stack, noise)
    white = pumping.whitening(noise)
    shapes = pumping.templates(response(123, 1), TIMES, CYCLES, white, pumping.tau_grid(20, 30000, 24), 2.0)
    sharp = pumping.significance(stack, white, shapes, scale)
    cut = cut or pumping.detection_cut(sharp.size, shapes)
    return pumping.find_dipoles(stack, white, shapes, noise, scale, sharp, cut), stack, noise


def fit(found, sign):
    here = np.sign(found.significance) == sign
    return here, pumping.fit_traps(
        found.amplitude[here] * GAIN, found.err[here] * GAIN, TIMES, [[response(123, sign)] * 6], CYCLES, 2.0
    )


def test_single_electrons_agree_with_the_means():
    """Capture by capture: the simulator's periodic state is what single electrons do."""
    rng = np.random.default_rng(1)
    for position, time, tau, pc in (
        (3.25, 200.0, 120.0, 0.6),
        (0.75, 1000.0, 2000.0, 0.9),
        (2.0, 200.0, 300.0, 0.8),
    ):
        arrays = (np.array([position]), time, np.array([tau]), np.array([2.0]), np.array([pc]))
        mean = physics.moved(CLOCKS, 123, "half_EF", *arrays, CYCLES)[0]
        drawn = physics.cycle_by_cycle(rng, CLOCKS, 123, "half_EF", position, time, tau, 2.0, pc, CYCLES)
        assert np.abs(drawn - mean).max() < 5 * np.sqrt(np.abs(mean).max() + 1) + 1
        assert abs(drawn.sum()) <= 1


@pytest.mark.parametrize("mode", [123, 234, 341, 412])
def test_every_place_is_seen_by_the_formula_of_the_table(mode):
    """The response of the clock table is that of the clocked trap, for all places that the mode shows."""
    for position, terms in CLOCKS.signatures("half_EF").items():
        if mode not in terms:
            continue
        t = terms[mode]
        r = pumping.Response(t.begin, t.end, t.hold, t.sign, t.pair, position)
        for time, tau in ((50.0, 70.0), (1000.0, 2000.0)):
            arrays = (np.array([position]), time, np.array([tau]), np.array([2.0]), np.array([0.7]))
            gain = physics.moved(CLOCKS, mode, "half_EF", *arrays, CYCLES)[0]
            amplitude = 0.5 * (gain[3 + t.pair] - gain[3 + t.pair + 1])
            assert amplitude * t.sign > 0
            assert amplitude == pytest.approx(r.sign * 0.7 * r.electrons(time, tau, CYCLES, 2.0), rel=1e-6)


def test_completeness_and_purity():
    found_of, false = [], 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        traps = draw(rng, 60)
        found, _, _ = search(frames(rng, traps))
        false += len(found.row[found.kind == "dipole"])
        shift = np.where(traps["position"] < 1, -1, 0)
        for k in range(60):
            hit = ((found.row == traps["row"][k] + shift[k]) & (found.column == traps["column"][k])).any()
            found_of.append(hit)
            false -= hit
    assert np.mean(found_of) >= 0.97
    assert false <= 3


def test_no_traps_no_dipoles():
    rng = np.random.default_rng(5)
    # Half a false dipole is expected in each of the eight.
    assert sum(search(frames(rng, draw(rng, 0)))[0].row.size for _ in range(8)) <= 12
    empty = pumping.fit_traps(np.empty((0, 6)), np.empty((0, 6)), TIMES, [[response(123, 1)] * 6], CYCLES)
    assert empty.tau.size == 0


@pytest.mark.parametrize("tau", [70.0, 300.0, 1500.0, 5000.0, 12000.0])
def test_pulls_of_emission_times(tau):
    """Forced photometry of 300 traps per time constant, read from images; no value piles up at a start."""
    pulls, ratio = [], []
    for seed in range(3):
        rng = np.random.default_rng(int(tau) + seed)
        number = 120
        grid_column = np.arange(3, 3 + 2 * number, 2)
        grid_row = 5 + rng.permutation(number) * 2
        traps = {
            "row": grid_row,
            "column": grid_column,
            "position": np.full(number, 3.25),
            "tau": np.full(number, tau),
            "tau_c": np.full(number, 2.0),
            "pc": np.full(number, 0.8),
        }
        found, _, _ = search(frames(rng, traps), cut=5.0)
        here, got = fit(found, -1)
        keep = (np.abs(found.significance[here]) > 8) & (got.status == "ok")
        assert keep.sum() > 0.95 * number
        ratio += (got.tau[keep] / tau).tolist()
        pulls += (np.log(got.tau[keep] / tau) * got.tau[keep] / got.tau_err[keep]).tolist()
        assert ((got.pc >= 0) & (got.pc <= 1)).all()
    assert len(ratio) >= 250
    assert abs(np.median(ratio) - 1) < 0.02
    assert_pulls(pulls, what=f"ln tau at {tau:g} us", bias=0.1, excess=0.05)


def test_limits_outside_the_range():
    """Beyond the times of the scan a trap has a limit of tau, which holds the truth."""
    rng = np.random.default_rng(7)
    r = response(123, 1)
    mean = r.electrons(TIMES[None, :], np.full((400, 1), 6e4), CYCLES, 2.0)
    data = rng.binomial(CYCLES, 0.5 * mean / CYCLES) + 40 * rng.normal(size=mean.shape)
    got = pumping.fit_traps(data, np.full(data.shape, 40.0), TIMES, [[r] * 6], CYCLES, 2.0)
    assert (got.status == "lower").mean() > 0.5
    assert (got.tau_low < 6e4).mean() > 0.9


def test_errors_far_below_the_step_of_the_grid():
    """Strong traps of the register: errors of a per cent and less, as good as their pulls."""
    rng = np.random.default_rng(19)
    serial = load_clocks("default").table("serial")
    position, terms = next(iter(serial.signatures("half_EF").items()))
    t = next(iter(terms.values()))
    r = pumping.Response(t.begin, t.end, t.hold, t.sign, t.pair, position)
    steps = np.array([serial.step_us(dwell) for dwell in (0, 4.75, 14.3, 28.6)])
    tau, lines = np.exp(rng.uniform(np.log(3), np.log(20), 1000)), 100
    mean = 0.8 * r.electrons(steps[None, :], tau[:, None], CYCLES, 0.4)
    data = mean + np.sqrt(mean * (1 - mean / CYCLES) / lines + 9.0) * rng.normal(size=mean.shape)
    got = pumping.fit_traps(
        data, np.full(data.shape, 3.0), steps, [[r] * 4], CYCLES, 0.4, (0.3, 500.0), lines=lines
    )
    assert (got.status == "ok").mean() > 0.95
    assert (got.tau_err > 0).all()
    assert np.median(got.tau_err / got.tau) < 0.01
    assert_pulls(np.log(got.tau / tau) * got.tau / got.tau_err, what="ln tau in the register")


def test_neighbouring_dipoles_are_solved_together():
    rng = np.random.default_rng(11)
    traps = {
        "row": np.array([100, 101, 200]),
        "column": np.array([50, 50, 80]),
        "position": np.full(3, 3.25),
        "tau": np.array([1500.0, 1500.0, 1500.0]),
        "tau_c": np.full(3, 2.0),
        "pc": np.array([0.9, 0.7, 0.8]),
    }
    found, _, _ = search(frames(rng, traps))
    strong = np.abs(found.significance) > 7
    assert found.row[strong].tolist() == [100, 101, 200]
    assert found.blended[strong].tolist() == [True, True, False]
    truth = -traps["pc"][:, None] * response(123, -1).electrons(TIMES[None, :], 1500.0, CYCLES, 2.0) / GAIN
    assert (np.abs(found.amplitude[strong] - truth) < 4.5 * np.hypot(found.err[strong], 30 / GAIN)).all()


def test_cosmic_rays_and_masks_are_no_dipoles():
    rng = np.random.default_rng(13)
    images = frames(rng, draw(rng, 0))
    images[3][120, 40] += 4000
    images[2][60:64, 100] += 3000
    images[5][200:, 7] += 50000
    mask = np.zeros(images[0].shape, bool)
    mask[200:, 7] = True
    found, _, _ = search(images, mask)
    assert (found.kind != "dipole").sum() >= 1
    assert (found.kind == "dipole").sum() <= 2


def test_species():
    rng = np.random.default_rng(17)
    truth = np.concatenate(
        [rng.normal(np.log10(t), 0.1, n) for t, n in ((120, 200), (2000, 400), (20000, 150))]
    )
    err = np.full(truth.size, 0.08)
    tau = 10 ** (truth + err / np.log(10) * rng.normal(size=truth.size))
    found = pumping.find_species(tau, tau * err)
    assert len(found) == 3
    for s, (t, n) in zip(found, ((120, 200), (2000, 400), (20000, 150)), strict=True):
        assert abs(s.tau - t) < 4 * s.tau_err
        assert s.n == pytest.approx(n, rel=0.05)
        assert s.width == pytest.approx(0.1, abs=0.02)
    assert pumping.find_species(tau[:3], tau[:3] * 0.1) == []


@pytest.mark.full
@pytest.mark.parametrize("quadrant", "EFGH")
def test_acceptance_in_every_quadrant(quadrant):
    """With the defaults of TP01: completeness, false dipoles, emission times, Pc, in all modes of a quadrant."""
    rng = np.random.default_rng(ord(quadrant))
    seeds, number, shape, half = 8, 60, (300, 256), half_of(quadrant)
    pairs = 2065 * 2048 * 4  # a quadrant of the full CCD, all modes
    false = searched = 0
    strong, hits, rows = [], [], []
    for mode in CLOCKS.modes:
        places = {p: t[mode] for p, t in CLOCKS.for_quadrant(quadrant).items() if mode in t}
        for _ in range(seeds):
            traps = draw(rng, number, shape, tau=(70, 12000), pc=(0.2, 1.0))
            traps["position"] = rng.choice(np.array(list(places)), number)
            images = frames(rng, traps, mode, shape, half)
            stack = [pumping.half_differences(image) for image in images]
            noise = np.array([pumping.noise_of(h) for h in stack])
            scale, white = pumping.column_noise(stack, noise), pumping.whitening(noise)
            kinds = {p: _response(t, p) for p, t in places.items()}
            first = next(iter(kinds.values()))
            shapes = pumping.templates(first, TIMES, CYCLES, white, pumping.tau_grid(20, 30000, 24), 2.0)
            cut = pumping.detection_cut(pairs, shapes, 0.05 / 4)  # a quarter for each mode
            sharp = pumping.significance(stack, white, shapes, scale)
            found = pumping.find_dipoles(stack, white, shapes, noise, scale, sharp, cut)
            searched += sharp.size
            real = np.flatnonzero(found.kind == "dipole")
            known = {(int(found.row[k]), int(found.column[k])): k for k in real}
            matched = set()
            for k in range(number):
                kind = kinds[traps["position"][k]]
                put = traps["pc"][k] * kind.electrons(TIMES, traps["tau"][k], CYCLES, 2.0) / GAIN
                snr = float(np.sqrt(np.square(put / noise).sum()))
                hit = known.get((int(traps["row"][k]) + kind.pair, int(traps["column"][k])))
                strong.append(snr >= 7.7)
                hits.append(hit is not None)
                if hit is None:
                    continue
                matched.add(hit)
                if snr >= 8:
                    got = pumping.fit_traps(
                        found.amplitude[[hit]] * GAIN,
                        found.err[[hit]] * GAIN,
                        TIMES,
                        [[kind] * 6],
                        CYCLES,
                        2.0,
                    )
                    rows.append(
                        (traps["tau"][k], got.tau[0], got.tau_err[0], got.pc[0], got.status[0] == "ok")
                    )
            false += len(real) - len(matched)
    assert np.mean(np.array(hits)[np.array(strong)]) >= 0.95
    assert false <= 1  # of 0.05 expected in as many pairs as a full quadrant has
    true, tau, err, pc, ok = (np.array(column) for column in zip(*rows, strict=True))
    assert ((pc >= 0) & (pc <= 1)).all()
    edges = np.geomspace(70, 12000, 6)
    for low, high in itertools.pairwise(edges):
        here = (true >= low) & (true < high)
        assert here.sum() >= 250
        # The error of a median of so many with 10 to 20 % each is 1 %.
        assert abs(np.median(tau[here] / true[here]) - 1) < 0.02
    pulls = (np.log(tau / true) * tau / err)[ok]
    assert 0.85 <= np.sqrt(np.mean(np.square(pulls))) <= 1.15
    # No value piles up: where an optimiser would stay, or at an edge.
    _, counts = np.unique(np.round(np.log(tau), 3), return_counts=True)
    assert counts.max() <= 12
    assert ok.mean() > 0.9


def _response(term, position):
    return pumping.Response(term.begin, term.end, term.hold, term.sign, term.pair, position)


def test_a_ray_on_a_trap_costs_one_time_only():
    """Charge from outside is told from charge that was moved: the trap is measured from the other times."""
    rng = np.random.default_rng(23)
    traps = draw(rng, 1)
    traps |= {"row": np.array([100]), "column": np.array([50]), "position": np.array([3.25])}
    traps |= {"tau": np.array([1500.0]), "pc": np.array([0.9])}
    images = frames(rng, traps)
    images[2][99:102, 50] += 2500 / GAIN  # of the six times
    images[4][200, 80:90] += 900 / GAIN  # a track along a row
    found, _, _ = search(images)
    real = (found.kind == "dipole") & (np.abs(found.significance) > 8)
    assert found.row[real].tolist() == [100]
    assert found.hit[real].tolist() == [[False, False, True, False, False, False]]
    here, got = fit(found, -1)
    k = np.flatnonzero(found.row[here] == 100)[0]
    assert abs(np.log(got.tau[k] / 1500.0)) < 4 * got.tau_err[k] / got.tau[k]
    assert got.dof[k] == 3


def one_trap(rng, row, column, pc=0.9, tau=1500.0, position=3.25):
    return draw(rng, 1) | {
        "row": np.array([row]),
        "column": np.array([column]),
        "position": np.array([position]),
        "tau": np.array([tau]),
        "pc": np.array([pc]),
    }


def dipoles(found):
    here = found.kind == "dipole"
    return sorted(zip(found.row[here].tolist(), found.column[here].tolist(), strict=True))


def test_a_ray_along_the_column_is_no_pair_of_dipoles():
    """Half of the pixels about the end of a long track belong to it: only the other side tells of its charge."""
    rng = np.random.default_rng(29)
    images = frames(rng, draw(rng, 0))
    images[0][100:114, 50] += 1100 / GAIN
    images[0][200:206, 80] += 9000 / GAIN
    images[0][206:215, 81] += 9000 / GAIN
    found, _, _ = search(images, cut=6.0)
    assert dipoles(found) == []
    assert {50, 80, 81} <= set(found.column[found.kind == "ray"].tolist())


def test_between_two_dipoles_is_no_third():
    rng = np.random.default_rng(31)
    hits = 0
    for seed in range(20):
        traps = one_trap(np.random.default_rng(seed), 100, 50)
        twice = {name: np.repeat(values, 2) for name, values in traps.items()} | {"row": np.array([100, 102])}
        found, _, _ = search(frames(rng, twice), cut=6.0)
        hits += dipoles(found) == [(100, 50), (102, 50)]
    assert hits >= 19


def test_a_trap_at_the_end_of_a_column_is_told():
    """Its other packet lies outside the image area: one pixel changes, and the pair inside is not that of the trap."""
    rng = np.random.default_rng(37)
    position = next(p for p, t in CLOCKS.signatures("half_EF").items() if 123 in t and t[123].pair == -1)
    outside = one_trap(rng, 5, 50, position=position) | {"row": np.array([0])}
    images = []
    for image in frames(rng, outside | {"row": np.array([5])}):
        # Rows 0 to 4 were never there: the packet that gained is lost.
        images.append(np.ascontiguousarray(image[5:]))
    found, _, _ = search(images, cut=6.0)
    assert dipoles(found) == []
    assert (found.kind == "edge").sum() == 1
    inside, _, _ = search(frames(rng, one_trap(rng, 0, 50)), cut=6.0)
    assert dipoles(inside) == [(0, 50)]


def test_noise_of_columns_is_known_to_a_per_cent():
    rng = np.random.default_rng(41)
    scale = 1 + 0.05 * rng.normal(size=256)
    stack = [np.rint(70 * scale * rng.normal(size=(2000, 256))).astype(np.int16) for _ in range(24)]
    found = pumping.column_noise(stack, [pumping.noise_of(half) for half in stack])
    assert np.std(found / (scale / np.median(scale)) - 1) < 0.012


def test_the_first_line_shows_no_pattern():
    """A line that holds 5 % less shows the pattern of the columns; it is taken off with the line's own share."""
    rng = np.random.default_rng(43)
    pattern = 1 + 0.05 * rng.normal(size=2048)
    image = np.outer(np.r_[0.95, np.ones(199)], pattern) * LEVEL / GAIN
    half = pumping.half_differences((image + 20 * rng.normal(size=image.shape)).astype(np.float32))
    noise = half.astype(float).std(axis=1) * pumping.STEP
    assert noise[0] == pytest.approx(np.median(noise), rel=0.08)


def test_the_error_of_the_model_is_found():
    rng = np.random.default_rng(47)
    serial = load_clocks("default").table("serial")
    t = next(iter(next(iter(serial.signatures("half_EF").values())).values()))
    r = pumping.Response(t.begin, t.end, t.hold, t.sign, t.pair, 0.0)
    steps = np.array([serial.step_us(dwell) for dwell in (0, 4.75, 14.3, 28.6)])
    tau = np.exp(rng.uniform(np.log(3), np.log(20), 40))
    mean = 0.8 * r.sign * r.electrons(steps[None, :], tau[:, None], CYCLES, 0.4)
    for share, low, high in ((0.0, 0.0, 0.002), (0.02, 0.013, 0.03)):
        variance = pumping.pumping_variance(mean, 6.0, CYCLES, 100)
        data = mean * (1 + share * rng.normal(size=mean.shape)) + np.sqrt(variance) * rng.normal(
            size=mean.shape
        )
        fit = pumping.fit_traps(
            data, np.full(data.shape, 6.0), steps, [[r] * 4], CYCLES, 0.4, (0.3, 500.0), lines=100
        )
        known = pumping.pumping_variance(data, 6.0, CYCLES, 100)
        assert low <= pumping.model_error([(data, known, np.zeros(40), fit)]) <= high
