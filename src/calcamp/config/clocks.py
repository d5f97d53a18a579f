"""Clock tables YAML: the steps of trap pumping, so that a real ROE table goes in without touching code."""

from __future__ import annotations

from pydantic import Field, model_validator

from calcamp.config.shape import File, Name, Shape
from calcamp.detector.clocks import Clocking


class ClockTable(Shape):
    """Pumping of one register."""

    phases: int = Field(ge=2, le=8, description="electrodes of a pixel")
    fixed_us: float = Field(0.0, ge=0, description="part of a step that is not commanded [us]")
    modes: dict[int, list[list[int]]] = Field(
        description="commanded mode -> steps; a step lists the electrodes that hold the charge of a pixel, "
        "1 nearest the node, 0 and below or above phases in the neighbouring pixels"
    )
    order: dict[str, list[int]] = Field(
        default_factory=dict,
        description="per half (half_EF, half_GH): the commanded phase of each electrode, from the node",
    )

    @model_validator(mode="after")
    def _sensible(self):
        if not self.modes:
            raise ValueError("modes is empty; name at least one mode with its steps")
        for mode, steps in self.modes.items():
            if len(steps) < 2 or not all(steps):
                raise ValueError(f"mode {mode} needs at least two steps, each with an electrode; correct it")
            if not all(-self.phases < e <= 3 * self.phases for step in steps for e in step):
                raise ValueError(f"mode {mode} names an electrode farther than a pixel away; correct it")
        for half, order in self.order.items():
            if half not in ("half_EF", "half_GH"):
                raise ValueError(f"order names {half!r}, expected half_EF or half_GH; correct it")
            if sorted(order) != list(range(1, self.phases + 1)):
                raise ValueError(f"order of {half} is {order}, expected each phase once; correct it")
        return self

    def clocking(self) -> Clocking:
        return Clocking.from_dict(self.model_dump())


class Clocks(File):
    """Clock tables of trap pumping for the image area and the serial register."""

    name: Name = Field(description="name of the tables, that of the file")
    source: str = Field(description="where the tables come from")
    parallel: ClockTable = Field(description="pumping of the image area (TP01, TP11)")
    serial: ClockTable = Field(description="pumping of the serial register (TP02, TP21)")

    def table(self, register: str) -> Clocking:
        """The table of ``parallel`` or ``serial``."""
        return getattr(self, register).clocking()
