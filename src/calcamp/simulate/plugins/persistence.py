"""Persistence: charge trapped where an exposure saturated, released into the frames that follow."""

from __future__ import annotations

import numpy as np

from calcamp.detector.arrays import canonical
from calcamp.simulate.chain import Plugin, State
from calcamp.simulate.plugins.spots import LONG_S, Spots

_SEEN_S = 20_000.0  # after this nothing is left
_SITES: dict[tuple, np.ndarray] = {}


class SaturatingSpots(Plugin):
    """Point sources of a long exposure far out of focus: discs that fill the wells, with a halo."""

    name, stage, order = "saturating_spots", "collect", 21
    provides = frozenset({"light"})
    settings = {  # noqa: RUF012
        "radius": 26.0,  # px, of a disc
        "electrons": 3e5,  # e- in the disc, more than a well holds
        "halo": 0.02,  # of the disc, at its rim
        "halo_px": 12.0,  # e-folding length
    }

    def draw(self, rng, context):
        return {key: float(value) for key, value in context.settings.items()}

    def active(self, exposure):
        keys = exposure.keys
        lit = int(keys.get("shuttr", 0)) and exposure.exptime >= LONG_S and keys.get("source") == "point"
        return bool(lit) and exposure.reads_charge

    def apply(self, state: State):
        truth, spots = state.truth[self.name], state.truth["spots"]
        if not spots["there"].any():
            return
        x, y = Spots.positions(state.truth, state.detector)
        charge = canonical(state.need_charge(), state.truth.quadrant)  # as stored
        rows = np.arange(charge.shape[0], dtype=np.float32)[:, None]
        columns = np.arange(charge.shape[1], dtype=np.float32)[None, :]
        light = np.zeros(charge.shape, np.float32)
        for k in np.nonzero(spots["there"])[0]:
            beyond = np.hypot(rows - np.float32(y[k]), columns - np.float32(x[k])) - truth["radius"]
            halo = truth["halo"] * np.exp(-np.maximum(beyond, 0) / truth["halo_px"])
            light += np.float32(truth["electrons"]) * np.where(beyond <= 0, 1.0, halo).astype(np.float32)
        charge += light if state.expectation else state.random(self.name).poisson(light)


class Persistence(Plugin):
    """Traps that a saturating exposure filled empty with one time constant.

    A pixel that held at least `fill` of the full well releases N (exp(-a/tau) - exp(-b/tau)) electrons between a
    and b s after the end of the light, Poisson. N varies from pixel to pixel.
    """

    name, stage, order = "persistence", "collect", 95
    settings = {  # noqa: RUF012
        "trapped_e": 8.0,  # e- per saturated pixel, mean
        "scatter": 0.3,  # rms from pixel to pixel, relative
        "tau_s": 300.0,
        "fill": 0.98,  # of the full well
    }

    def draw(self, rng, context):
        s = context.settings
        spread = rng.lognormal(0.0, max(float(s["scatter"]), 1e-9), context.detector.image_shape)
        return {
            "trapped_e": float(s["trapped_e"]),
            "tau_s": float(s["tau_s"]),
            "fill": float(s["fill"]),
            "spread": (spread / spread.mean()).astype(np.float32)
            if float(s["trapped_e"])
            else np.ones((1, 1)),
        }

    def active(self, exposure):
        return exposure.reads_charge and exposure.exptime > 0 and bool(exposure.lit_before)

    def apply(self, state: State):
        truth = state.truth[self.name]
        if not truth["trapped_e"]:
            return
        released = 0.0
        for ended, keys in state.exposure.lit_before:
            if ended > _SEEN_S:
                continue
            share = self.share(ended, state.exposure.exptime, truth["tau_s"])
            released = released + share * self.sites(state, keys)
        if isinstance(released, float):
            return
        mean = released * truth["trapped_e"] * truth["spread"]
        charge = state.need_charge()
        charge += mean if state.expectation else state.random(self.name).poisson(mean)
        state.record["persistence_e"] = float(mean[mean > 0].mean()) if (mean > 0).any() else 0.0

    @staticmethod
    def share(ended: float, exptime: float, tau: float) -> float:
        """Share of the trapped charge released in an exposure that starts `ended` s after the light."""
        return float(np.exp(-ended / tau) - np.exp(-(ended + exptime) / tau))

    @classmethod
    def sites(cls, state: State, keys: dict) -> np.ndarray:
        """1 where the exposure of `keys` filled the wells, float32, image area."""
        key = (id(state.truth), str(sorted(keys.items(), key=str)))
        if key not in _SITES:
            if len(_SITES) >= 24:
                _SITES.clear()
            _SITES[key] = cls._filled(state, keys)
        return _SITES[key]

    @classmethod
    def _filled(cls, state: State, keys: dict) -> np.ndarray:
        from calcamp.simulate.chain import plugins
        from calcamp.simulate.exposure import Exposure

        light = Exposure(state.exposure.obsid, keys)
        own = State(state.truth, light, state.detector, state.random, expectation=True)
        for plugin in plugins():
            if plugin.stage == "collect" and plugin.order < cls.order and plugin.active(light):
                plugin.apply(own)
        well = state.truth["full_well"]["electrons"]
        return (own.need_charge() >= state.truth[cls.name]["fill"] * well).astype(np.float32)


PLUGINS = (SaturatingSpots(), Persistence())
