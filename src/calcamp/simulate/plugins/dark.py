"""Dark current: base rate, warm and hot pixels, bright columns, random telegraph signal, spurious charge.

Rates are e-/s/px at 153.15 K and follow temperature with an activation energy of 0.65 eV. A packet
read at row r waits for the integration time in row r, then passes rows r, r-1, ... 0, one row time in
each: what it collects there is the read-out dark signal, and the trail behind a hot pixel.
"""

from __future__ import annotations

import numpy as np

from calcamp.simulate.chain import ChannelContext, Plugin, State
from calcamp.simulate.exposure import NOMINAL_TEMPERATURE_K
from calcamp.simulate.sampling import add_at, add_poisson_rows

_BOLTZMANN_EV_K = 8.617333e-5
ACTIVATION_EV = 0.65


#: Above this the cold rates are not followed: there the surface makes the dark current (plug-in warm_dark).
_WARMEST_K = 180.0


def temperature_factor(kelvin: float) -> float:
    """Dark rate relative to the nominal temperature (Arrhenius), up to 180 K."""
    kelvin = min(kelvin, _WARMEST_K)
    return float(np.exp(ACTIVATION_EV / _BOLTZMANN_EV_K * (1 / NOMINAL_TEMPERATURE_K - 1 / kelvin)))


def _places(rng, context: ChannelContext, number: int):
    """`number` different places in the image area."""
    rows, columns = context.detector.image_shape
    flat = rng.choice(rows * columns, size=min(number, rows * columns), replace=False, shuffle=True)
    return (flat // columns).astype(np.int32), (flat % columns).astype(np.int32)


class Dark(Plugin):
    """Charge collected during the integration."""

    name, stage, order = "dark", "collect", 0
    settings = {  # noqa: RUF012
        "rate_e_h": None,  # base rate, e-/px/h; None: drawn between 1 and 6
        "warm_fraction": 0.02,  # pixels above the base rate
        "warm_mean": 2.0,  # their mean excess, in base rates (exponential)
        "hot": None,  # hot pixels per quadrant; None: 1e-5 of the pixels, at least 10
        "hot_min_e_s": 0.5,
        "hot_max_e_s": 20.0,
        "hot_columns": 1,  # bright columns per quadrant
        "rts": 0,  # random telegraph pixels per quadrant
    }

    def draw(self, rng, context):
        get = context.settings
        rate = (rng.uniform(1.0, 6.0) if get["rate_e_h"] is None else float(get["rate_e_h"])) / 3600
        rows, columns = context.detector.image_shape
        n_warm = round(float(get["warm_fraction"]) * rows * columns)
        n_hot = max(10, round(1e-5 * rows * columns)) if get["hot"] is None else int(get["hot"])
        n_rts = int(get["rts"])
        place_rows, place_columns = _places(rng, context, n_warm + n_hot + n_rts)
        warm = slice(0, n_warm)
        hot = slice(n_warm, n_warm + n_hot)
        rts = slice(n_warm + n_hot, None)
        low, high = np.log(float(get["hot_min_e_s"])), np.log(float(get["hot_max_e_s"]))
        warm_rate = rng.exponential(float(get["warm_mean"]) * rate, n_warm).astype(np.float32)
        mean = rate + warm_rate.sum(dtype=float) / (rows * columns)
        bright = self._bright_columns(rng, int(get["hot_columns"]), rows, columns)
        return {
            "base_e_s": rate,
            "mean_e_s": mean,
            "dsnu_e_s": float(
                np.sqrt((warm_rate.astype(float) ** 2).sum() / (rows * columns) - (mean - rate) ** 2)
            ),
            "temperature_K": NOMINAL_TEMPERATURE_K,
            "activation_eV": ACTIVATION_EV,
            "warm_row": place_rows[warm],
            "warm_column": place_columns[warm],
            "warm_e_s": warm_rate,
            "hot_row": place_rows[hot],
            "hot_column": place_columns[hot],
            "hot_e_s": np.exp(rng.uniform(low, high, n_hot)).round(3),
            "rts_row": place_rows[rts],
            "rts_column": place_columns[rts],
            "rts_low_e_s": rng.uniform(0.0, 0.1, n_rts).round(4),
            "rts_high_e_s": rng.uniform(0.3, 2.0, n_rts).round(3),
            "rts_duty": rng.uniform(0.3, 0.7, n_rts).round(3),
            **bright,
        }

    @staticmethod
    def _bright_columns(rng, number: int, rows: int, columns: int) -> dict:
        """Columns bright from a row to the end of the quadrant, each pixel with the same rate."""
        return {
            "bright_column": rng.choice(columns, size=number, replace=False).astype(np.int32),
            "bright_first_row": rng.integers(0, rows // 2, number).astype(np.int32),
            "bright_e_s": np.exp(rng.uniform(np.log(0.2), np.log(2.0), number)).round(3),
        }

    def active(self, exposure):
        return exposure.reads_charge and exposure.exptime > 0

    def apply(self, state: State):
        truth, charge = state.truth["dark"], state.need_charge()
        scale = state.exposure.exptime * temperature_factor(state.exposure.temperature(state.truth.ccd))
        rows, columns, rates = sources(state)
        rng = state.random(self.name)
        base = np.full(charge.shape[0], truth["base_e_s"] * scale)
        if state.expectation:
            charge += base[:, None].astype(np.float32)
            add_at(charge, rows, columns, rates * scale)
            return
        add_poisson_rows(rng, base, charge)
        add_at(charge, rows, columns, rng.poisson(rates * scale))


def sources(state: State) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, columns, rates) of all pixels above the base rate in this frame, e-/s at 153.15 K."""
    truth = state.truth["dark"]
    image_rows = state.detector.image_rows
    lengths = [image_rows - int(first) for first in truth["bright_first_row"]]
    rows = [truth["warm_row"], truth["hot_row"], truth["rts_row"]]
    rows += [np.arange(image_rows - n, image_rows) for n in lengths]
    columns = [truth["warm_column"], truth["hot_column"], truth["rts_column"]]
    columns += [np.full(n, column) for n, column in zip(lengths, truth["bright_column"], strict=True)]
    rates = [truth["warm_e_s"], truth["hot_e_s"], _telegraph_rates(state)]
    rates += [np.full(n, rate) for n, rate in zip(lengths, truth["bright_e_s"], strict=True)]
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(rates).astype(float)


def _telegraph_rates(state: State) -> np.ndarray:
    """Rates of the telegraph pixels: each is high or low for a whole frame."""
    truth = state.truth["dark"]
    if not len(truth["rts_row"]):
        return np.zeros(0)
    if state.expectation:
        return truth["rts_duty"] * truth["rts_high_e_s"] + (1 - truth["rts_duty"]) * truth["rts_low_e_s"]
    high = state.random("rts").random(len(truth["rts_row"])) < truth["rts_duty"]
    return np.where(high, truth["rts_high_e_s"], truth["rts_low_e_s"])


class ReadoutDark(Plugin):
    """Dark current and spurious charge collected while packets travel to the serial register."""

    name, stage, order = "readout_dark", "transfer", 10
    settings = {"spurious_e": None}  # noqa: RUF012 - at the last image row of a full-size CCD; None: drawn

    def draw(self, rng, context):
        full = rng.uniform(0.02, 0.06)
        value = context.settings["spurious_e"]
        # Spurious charge is made per parallel transfer: fewer rows, less of it.
        per_transfer = (full if value is None else float(value)) / 2066
        return {"spurious_e_per_transfer": per_transfer}

    def active(self, exposure):
        return exposure.reads_charge

    def apply(self, state: State):
        detector, signal = state.detector, state.need_signal()
        area = signal[:, detector.prescan : detector.prescan + detector.image_columns]
        scale = state.row_time_s * temperature_factor(state.exposure.temperature(state.truth.ccd))
        passed = np.minimum(np.arange(detector.rows) + 1, detector.image_rows)
        mean = passed * (
            state.truth["dark"]["base_e_s"] * scale + state.truth[self.name]["spurious_e_per_transfer"]
        )
        rows, columns, rates = sources(state)
        rng = state.random(self.name)
        if state.expectation:
            rate = np.zeros(detector.image_shape)
            np.add.at(rate, (rows, columns), rates * scale)
            trail = np.cumsum(rate, axis=0)
            area += mean[:, None]
            area[: detector.image_rows] += trail
            area[detector.image_rows :] += trail[-1]
            return
        add_poisson_rows(rng, mean, area)
        # Each source adds to every row read after its own: so many electrons, in rows drawn at random.
        behind = detector.rows - rows
        events = rng.poisson(rates * scale * behind)
        first, column, span = (np.repeat(a, events) for a in (rows, columns, behind))
        add_at(area, first + (rng.random(first.size) * span).astype(np.int64), column)


PLUGINS = (Dark(), ReadoutDark())
