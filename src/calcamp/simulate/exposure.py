"""One commanded exposure: its keys, its place in time, how long everything takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from calcamp.campaign.duration import frame_seconds
from calcamp.detector.geometry import Detector

#: CCD temperature around which rates are stated, K (-120 C).
NOMINAL_TEMPERATURE_K = 153.15


@dataclass(frozen=True)
class Disturbance:
    """Something wrong in a frame; None means all CCDs, all quadrants."""

    kind: str
    value: float
    ccd: int | None = None
    quadrant: str | None = None

    def hits(self, ccd: int, quadrant: str) -> bool:
        return self.ccd in (None, ccd) and self.quadrant in (None, quadrant)


@dataclass(frozen=True)
class Exposure:
    """One exposure of the block.

    ``keys`` holds every commanded ELVIS key by its script name, defaults included. ``elapsed_s`` is the
    time since the session began: slow drifts depend on it.
    """

    obsid: int
    keys: dict[str, object]
    test: str = ""
    column: int = 1
    frame: int = 1
    start: datetime = datetime(2019, 3, 12, 7, 0, 0)
    elapsed_s: float = 0.0
    temperature_K: dict[int, float] = field(default_factory=dict)  # per CCD, nominal where absent
    disturbances: tuple[Disturbance, ...] = ()
    warm: bool = False  # taken at room temperature
    set_k: float | None = None  # temperature the operator has set, K; None: the nominal one
    # long exposures to light before this one: (s from the end of the light to the start of this one, keys)
    lit_before: tuple[tuple[float, dict], ...] = ()

    @property
    def exptime(self) -> float:
        return float(self.keys.get("exptime", 0.0))

    @property
    def read_mode(self) -> str:
        return str(self.keys.get("rdmode", "fwd_bas"))

    @property
    def reads_charge(self) -> bool:
        """Whether charge of the image area reaches the node: no reversed clocks."""
        return not self.read_mode.startswith("rwd")

    @property
    def end(self) -> datetime:
        """When the next exposure can start: the duration model of the campaign, in whole seconds."""
        return self.start + timedelta(seconds=ceil(frame_seconds(self.keys)))

    def temperature(self, ccd: int) -> float:
        return self.temperature_K.get(ccd, NOMINAL_TEMPERATURE_K)

    def disturbed(self, kind: str, ccd: int, quadrant: str) -> float | None:
        """Value of the disturbance `kind` in this quadrant, None when there is none."""
        for disturbance in self.disturbances:
            if disturbance.kind == kind and disturbance.hits(ccd, quadrant):
                return disturbance.value
        return None


def row_time_s(keys: dict, detector: Detector) -> float:
    """Seconds between the read-out of two rows: four clock phases and one line of pixels.

    Source: duration model of ELVIS (data formats, 5.3), with the pixels that the frame holds.
    """
    return 4e-6 * float(keys.get("toi_ro", 1000)) + detector.pixel_time_s * detector.columns
