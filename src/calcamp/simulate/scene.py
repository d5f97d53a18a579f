"""A block in the chamber: twelve channels with a truth drawn from a seed, and its frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from calcamp.data.files import InputError
from calcamp.detector.arrays import quadrant_view
from calcamp.detector.geometry import CCDS, QUADRANTS, Detector
from calcamp.simulate.chain import ChannelContext, ChannelTruth, State, plugins, run
from calcamp.simulate.exposure import Exposure
from calcamp.simulate.seeds import stream

_DEFAULT_OFFSET = 2800.0  # ADU, of a block without expected offsets


def resolve_settings(changes: dict[str, object] | None = None) -> dict[str, dict]:
    """Settings of every plug-in; `changes` has keys ``plugin.setting``."""
    resolved = {plugin.name: dict(plugin.settings) for plugin in plugins()}
    for key, value in (changes or {}).items():
        plugin, _, setting = key.partition(".")
        if setting not in resolved.get(plugin, {}):
            known = sorted(f"{name}.{s}" for name, settings in resolved.items() for s in settings)
            raise InputError(f"there is no setting {key!r}", expected=f"one of {', '.join(known)}")
        resolved[plugin][setting] = value
    return resolved


def chamber_settings(chamber, detector: Detector) -> dict[str, object]:
    """What a chamber profile decides of the scene: keys ``plugin.setting``."""
    return {
        f"{plugin.name}.{key}": value
        for plugin in plugins()
        for key, value in plugin.chamber_settings(chamber, detector).items()
    }


def draw_channel(
    seed: int,
    detector: Detector,
    ccd: int = 1,
    quadrant: str = "E",
    offset: float = _DEFAULT_OFFSET,
    settings: dict[str, object] | None = None,
) -> ChannelTruth:
    """Truth of one channel.

    Parameters
    ----------
    seed : of the block; equal seeds give equal channels.
    offset : ADU that the block expects of the channel.
    settings : changes, ``{"dark.rate_e_h": 3.0, ...}``.
    """
    resolved = resolve_settings(settings)
    params = {}
    for plugin in plugins():
        context = ChannelContext(ccd, quadrant, detector, offset, resolved[plugin.name])
        params[plugin.name] = plugin.draw(stream(seed, "truth", ccd, quadrant, plugin.name), context)
    return ChannelTruth(ccd, quadrant, params)


def simulate_frame(
    truth: ChannelTruth, exposure: Exposure, detector: Detector, rng: np.random.Generator
) -> np.ndarray:
    """One frame of one channel, uint16 [rows, columns], canonical orientation.

    Every plug-in gets a stream of its own, spawned from `rng`: a plug-in added later changes no other.
    """
    base = int(rng.integers(2**63))
    state = State(
        truth,
        exposure,
        detector,
        random=lambda name: stream(base, name),
        common=lambda name: stream(base, "block", name),
    )
    return next(run([state])).counts


def expected_frame(truth: ChannelTruth, exposure: Exposure, detector: Detector) -> np.ndarray:
    """Mean of a frame's signal before rounding, ADU, float32 [rows, columns], canonical.

    Dark current, structure, offset and slow drift; without noise, jitter, wander and cosmic rays.
    """
    state = State(truth, exposure, detector, random=lambda name: stream(0, name), expectation=True)
    for plugin in plugins():
        if plugin.scope == "channel" and plugin.stage != "adc" and plugin.active(exposure):
            plugin.apply(state)
    return state.need_signal()


@dataclass(frozen=True)
class Scene:
    """Twelve channels of a block, simulated with one detector from one seed."""

    detector: Detector
    seed: int
    offsets: dict = field(default_factory=dict)  # {ccd: {quadrant: ADU}}, expected by the block
    settings: dict = field(default_factory=dict)  # changes, {"plugin.setting": value}
    _drawn: dict = field(default_factory=dict, repr=False, compare=False)

    def channel(self, ccd: int, quadrant: str) -> ChannelTruth:
        if (ccd, quadrant) not in self._drawn:
            offset = float(self.offsets.get(ccd, {}).get(quadrant, _DEFAULT_OFFSET))
            truth = draw_channel(self.seed, self.detector, ccd, quadrant, offset, self.settings)
            self._drawn[ccd, quadrant] = truth
        return self._drawn[ccd, quadrant]

    def channels(self) -> list[ChannelTruth]:
        return [self.channel(ccd, quadrant) for ccd in CCDS for quadrant in QUADRANTS]

    def frames(self, exposure: Exposure, ccds=CCDS):
        """Yield (ccd, stored frame uint16, {quadrant: record}) of an exposure."""
        states = (self._state(exposure, ccd, quadrant) for ccd in ccds for quadrant in QUADRANTS)
        frame, records = None, {}
        for state in run(states):
            if frame is None:
                frame, records = np.empty(self.detector.ccd_shape, dtype=np.uint16), {}
            quadrant_view(frame, state.truth.quadrant, self.detector)[...] = state.counts
            records[state.truth.quadrant] = state.record
            if len(records) == len(QUADRANTS):
                yield state.truth.ccd, frame, records
                frame = None

    def _state(self, exposure: Exposure, ccd: int, quadrant: str) -> State:
        def random(name: str):
            return stream(self.seed, "frame", exposure.obsid, ccd, quadrant, name)

        def common(name: str):
            return stream(self.seed, "frame", exposure.obsid, "block", name)

        return State(self.channel(ccd, quadrant), exposure, self.detector, random, common)
