"""Electronic cross-talk: a small share of what one channel reads shows in the others, at the same instant."""

from __future__ import annotations

import numpy as np

from calcamp.simulate.chain import Plugin

CHANNELS = tuple(f"{ccd}{quadrant}" for ccd in (1, 2, 3) for quadrant in "EFGH")
_FAINT = 5.0  # e-: fainter pixels of a source are not followed


class Crosstalk(Plugin):
    """Adds to each victim the signals of the eleven other channels times its coefficients.

    Coefficients are of ADU: what one ADU above offset in the source adds to the victim. ``lagged`` adds a
    share of each coefficient one pixel later, as a channel of limited bandwidth does. Only point-source
    exposures have it by default: signals of flats are alike in all channels.
    """

    name, stage, order, scope = "crosstalk", "crosstalk", 0, "exposure"
    settings = {  # noqa: RUF012
        "rms": 1e-5,  # of the coefficients, drawn with either sign
        "pairs": {},  # e.g. {"1E>2F": 3e-4}: source > victim
        "lagged": 0.0,  # share of a coefficient that comes one pixel later
        "sources": ("point",),  # exposures with these light sources
    }

    def draw(self, rng, context):
        victim = f"{context.ccd}{context.quadrant}"
        coefficient = float(context.settings["rms"]) * rng.standard_normal(len(CHANNELS))
        coefficient[CHANNELS.index(victim)] = 0.0
        for pair, value in dict(context.settings["pairs"]).items():
            source, _, to = pair.partition(">")
            if to == victim:
                coefficient[CHANNELS.index(source)] = float(value)
        return {
            "coefficient": coefficient,
            "lagged": float(context.settings["lagged"]),
            "sources": tuple(context.settings["sources"]),
        }

    def active(self, exposure):
        keys = exposure.keys
        lit = int(keys.get("shuttr", 0)) and exposure.exptime > 0 and exposure.reads_charge
        return bool(lit) and keys.get("source") in ("point", "flat")

    def apply(self, states):
        if not states or states[0].exposure.keys.get("source") not in states[0].truth[self.name]["sources"]:
            return
        bright = {}
        for state in states:
            signal = state.need_signal().reshape(-1)
            at = np.flatnonzero(signal > _FAINT)
            bright[f"{state.truth.ccd}{state.truth.quadrant}"] = (at, signal[at] / state.truth.gain)
        columns = states[0].detector.columns
        for state in states:
            truth, victim = state.truth[self.name], state.need_signal().reshape(-1)
            for source, (at, level) in bright.items():
                c = truth["coefficient"][CHANNELS.index(source)] * state.truth.gain
                if not c:
                    continue
                victim[at] += (c * level).astype(np.float32)
                if truth["lagged"]:
                    later = at[(at + 1) % columns != 0] + 1
                    victim[later] += (truth["lagged"] * c * level[(at + 1) % columns != 0]).astype(np.float32)


PLUGINS = (Crosstalk(),)
