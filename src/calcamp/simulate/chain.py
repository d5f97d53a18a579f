"""The signal chain: ordered stages, each filled by plug-ins.

A plug-in is one physical or electronic effect. It draws its own truth per channel, and changes the
state of a channel in its stage. Up to ``crosstalk`` and ``nonlinearity`` signals are electrons; the
plug-in ``gain`` (first of ``amplify``) makes them ADU. Later families add plug-ins and change nothing
here: a module in ``plugins/`` with a tuple ``PLUGINS`` is found by scanning the package.

=============  ===========================================  =========================
stage          what happens                                 works on
=============  ===========================================  =========================
collect        light, dark current, cosmic rays             ``state.charge``, image area
inject         charge injection                             ``state.charge``
pump           trap pumping                                 ``state.charge``
transfer       read-out of the rows, charge made meanwhile  ``state.signal``, whole quadrant
crosstalk      between channels (scope ``exposure``)        ``state.signal``, e-
nonlinearity   response of the chain, hard edge                ``state.signal``, e-
amplify        gain, read noise                             ``state.signal``, ADU
bias           offset, drift, structure, pick-up            ``state.signal``, ADU
adc            rounding, clipping, stuck bits, window       ``state.counts``
=============  ===========================================  =========================
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from calcamp.detector.geometry import Detector
from calcamp.simulate.exposure import Exposure, row_time_s

STAGES = ("collect", "inject", "pump", "transfer", "crosstalk", "nonlinearity", "amplify", "bias", "adc")


@dataclass(frozen=True)
class ChannelTruth:
    """What went into one channel: the parameters of every plug-in, by the plug-in's name."""

    ccd: int
    quadrant: str
    params: dict[str, dict]

    def __getitem__(self, plugin: str) -> dict:
        return self.params[plugin]

    @property
    def gain(self) -> float:
        """e-/ADU."""
        return self.params["gain"]["gain"]

    @property
    def read_noise(self) -> float:
        """ADU, before the ADC rounds."""
        return self.params["read_noise"]["sigma"]

    @property
    def offset(self) -> float:
        """ADU, of the prescan, without drift."""
        return self.params["offset"]["offset"]

    @property
    def dark_e_s(self) -> float:
        """Mean dark current of pixels that are not hot, e-/s/px at the nominal temperature."""
        return self.params["dark"]["mean_e_s"]

    def changed(self, plugin: str, **values) -> ChannelTruth:
        """A copy with parameters of one plug-in replaced."""
        params = dict(self.params)
        params[plugin] = {**params.get(plugin, {}), **values}
        return replace(self, params=params)


@dataclass
class State:
    """One channel of one exposure on its way through the chain. Arrays are canonical, float32."""

    truth: ChannelTruth
    exposure: Exposure
    detector: Detector
    random: Callable[[str], np.random.Generator]  # a stream of its own for each plug-in
    # the same, but one for all channels of an exposure: lamp, shutter
    common: Callable[[str], np.random.Generator] | None = None
    expectation: bool = False  # mean values in place of random draws
    charge: np.ndarray | None = None  # e-, image area; None while empty
    signal: np.ndarray | None = None  # e- then ADU, whole quadrant; None while empty
    counts: np.ndarray | None = None  # ADU, uint16
    record: dict[str, float] = field(default_factory=dict)  # what went into this frame

    @property
    def row_time_s(self) -> float:
        return row_time_s(self.exposure.keys, self.detector)

    def row_times_s(self) -> np.ndarray:
        """When each row is read, s after the read-out began, shape (rows,)."""
        return self.row_time_s * np.arange(self.detector.rows)

    def disturbed(self, kind: str) -> float | None:
        return self.exposure.disturbed(kind, self.truth.ccd, self.truth.quadrant)

    def need_charge(self) -> np.ndarray:
        if self.charge is None:
            self.charge = np.zeros(self.detector.image_shape, dtype=np.float32)
        return self.charge

    def need_signal(self) -> np.ndarray:
        if self.signal is None:
            self.signal = np.zeros(self.detector.quadrant_shape, dtype=np.float32)
        return self.signal


@dataclass(frozen=True)
class ChannelContext:
    """What a plug-in may know when it draws the truth of a channel."""

    ccd: int
    quadrant: str
    detector: Detector
    block_offset: float  # ADU, expected by the block
    settings: dict[str, object]  # the plug-in's own settings

    @property
    def area(self) -> float:
        """Image pixels relative to the full-size CCD."""
        return self.detector.image_rows * self.detector.image_columns / (2066 * 2048)


class Plugin:
    """One effect. Sub-class it, set ``name`` and ``stage``, and list an instance in ``PLUGINS``."""

    name = ""
    stage = ""
    order = 0  # within the stage
    scope = "channel"  # or "exposure": then `apply` gets the list of all states
    provides: frozenset[str] = frozenset()  # of light, inject, pump: what a test may ask for
    settings: dict[str, object] = {}  # noqa: RUF012 - what can be set for a scene, with defaults

    def draw(self, rng: np.random.Generator, context: ChannelContext) -> dict:
        """Truth of one channel: plain numbers and arrays."""
        return {}

    def chamber_settings(self, chamber, detector: Detector) -> dict[str, object]:
        """Settings that a chamber profile gives; what is set by hand wins over them."""
        return {}

    def active(self, exposure: Exposure) -> bool:
        return True

    def apply(self, state) -> None:
        raise NotImplementedError


@cache
def plugins() -> tuple[Plugin, ...]:
    """All plug-ins, in the order of the chain."""
    import calcamp.simulate.plugins as package

    found = []
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found.extend(getattr(module, "PLUGINS", ()))
    return tuple(sorted(found, key=lambda p: (STAGES.index(p.stage), p.order, p.name)))


def features(exposure: Exposure) -> set[str]:
    """What the chain must be able to do for this exposure."""
    keys, wanted = exposure.keys, set()
    if int(keys.get("shuttr", 0)) and exposure.exptime > 0:
        wanted.add("light")
    if int(keys.get("chinj", 0)):
        wanted.add("inject")
    if int(keys.get("v_tpump", 0)) or int(keys.get("s_tpump", 0)):
        wanted.add("pump")
    return wanted


def missing_features(exposure: Exposure) -> set[str]:
    """Features that no plug-in provides."""
    return features(exposure) - set().union(*(plugin.provides for plugin in plugins()))


def run(states: Iterable[State]) -> Iterator[State]:
    """Bring states from charge to counts, in their order.

    Without cross-talk one channel at a time is in memory; a plug-in of scope ``exposure`` needs all.
    """
    states = iter(states)
    first = next(states, None)
    if first is None:
        return
    active = [plugin for plugin in plugins() if plugin.active(first.exposure)]
    cut = max((k + 1 for k, plugin in enumerate(active) if plugin.scope == "exposure"), default=0)
    if not cut:
        for state in _chained(first, states):
            _apply(state, active)
            yield state
        return
    together = list(_chained(first, states))
    for plugin in active[:cut]:
        if plugin.scope == "exposure":
            plugin.apply(together)
        else:
            for state in together:
                plugin.apply(state)
    while together:
        state = together.pop(0)
        _apply(state, active[cut:])
        yield state


def _chained(first, rest):
    yield first
    yield from rest


def _apply(state: State, active: Iterable[Plugin]) -> None:
    for plugin in active:
        plugin.apply(state)
