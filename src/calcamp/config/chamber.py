"""Chamber YAML: lamps, filter wheel, focus mirror, spot pattern and shutter of a test chamber."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from calcamp.config.errors import ConfigError, did_you_mean
from calcamp.config.products import QUADRANTS
from calcamp.config.shape import File, Name, Shape
from calcamp.detector.geometry import Detector

#: The 20 sources of a CCD: quadrant and first letter of ALPHA, BRAVO, CHARLIE, DELTA, ECHO.
SPOTS = tuple(quadrant + spot for quadrant in QUADRANTS for spot in "ABCDE")

_FULL_SIZE = Detector("ccd273")

Wavelength = Annotated[int, Field(ge=0, le=3000)]
Slot = Annotated[int, Field(ge=1, le=6)]
Seconds = Annotated[float, Field(gt=0)]
XY = Annotated[list[float], Field(min_length=2, max_length=2)]


class SaturationTime(Shape):
    """Exposure times that fill the range, by wavelength [nm]; 0 neutral density, 2000 open."""

    flat: dict[Wavelength, Seconds] = Field(
        description="flat source: time to 65536 ADU [s], by wavelength [nm]"
    )
    point: dict[Wavelength, Seconds] = Field(
        description="point source: time to saturation at the peak [s], by wavelength [nm]"
    )


class Optics(Shape):
    """Size of a spot without the detector, for the detector's own point-spread function."""

    fwhm_px: dict[Wavelength, Annotated[float, Field(gt=0)]] = Field(
        description="FWHM of the optics [px], by wavelength [nm]"
    )
    err: Annotated[float, Field(ge=0)] = Field(description="error of these [px]")


class History(Shape):
    """One change of the profile."""

    when: str = Field(description="date, as text (in quotes)")
    who: str = Field("", description="who changed it")
    what: str = Field(description="what was changed, or where the values are from")
    source: str = Field("", description="document, or test and session that gave the new value")


def _all_spots(value: dict[str, list[float]]) -> dict[str, list[float]]:
    missing = [spot for spot in SPOTS if spot not in value]
    unknown = [spot for spot in value if spot not in SPOTS]
    if unknown:
        raise ValueError(f"unknown source {unknown[0]!r}; {did_you_mean(unknown[0], SPOTS)}")
    if missing:
        raise ValueError(f"no position for {', '.join(missing)}, expected 20 sources; add them")
    return value


Positions = dict[Literal[1, 2, 3], Annotated[dict[str, XY], AfterValidator(_all_spots)]]


class Pattern(File):
    """Nominal positions of the point sources on the three CCDs."""

    pattern: Name = Field(description="name of the pattern, that of the file")
    frame: Literal["phys"] = Field(
        "phys", description="coordinates: silicon, 0-based pixels, injection rows included"
    )
    positions: Positions = Field(description="x, y of each source [px], by CCD and source (EA .. HE)")
    history: list[History] = Field([], description="who changed what, when, from which result")

    def xy(self, ccd: int, spot: str) -> tuple[float, float]:
        x, y = self.positions[ccd][spot]
        return x, y

    def on(self, detector) -> dict[int, dict[str, list[float]]]:
        """Positions on a detector: a pattern is of the full-size CCD, on a smaller one it is scaled.

        Each half is scaled by itself, so that the injection rows keep their width.
        """
        return {
            ccd: {name: _scaled(xy, _FULL_SIZE, detector) for name, xy in spots.items()}
            for ccd, spots in self.positions.items()
        }

    @staticmethod
    def from_detector(positions: dict, detector) -> dict[int, dict[str, list[float]]]:
        """Positions of a pattern from those found on a detector: the way back of `on`."""
        return {
            ccd: {name: _scaled(xy, detector, _FULL_SIZE) for name, xy in spots.items()}
            for ccd, spots in positions.items()
        }


def _scaled(xy, old, new) -> list[float]:
    """Silicon position on detector `new` of one on detector `old`."""
    x, y = xy
    if (old.image_columns, old.image_rows) == (new.image_columns, new.image_rows):
        return [x, y]
    across, along = new.image_columns / old.image_columns, new.image_rows / old.image_rows
    upper = y > old.image_rows + 0.5 * old.injection_rows
    start, moved = (d.image_rows + d.injection_rows if upper else 0 for d in (old, new))
    return [(x + 0.5) * across - 0.5, (y - start + 0.5) * along - 0.5 + moved]


class ShutterTable(File):
    """True exposure time as a function of the commanded one."""

    shutter: Name = Field(description="name of the table, that of the file")
    commanded: list[float] = Field(min_length=2, description="commanded exposure times [s], growing")
    actual: list[float] = Field(min_length=2, description="true exposure times [s]")
    superseded_by: str | None = Field(None, description="the table to use instead, if this one is wrong")
    history: list[History] = Field([], description="who changed what, when, from which result")

    @model_validator(mode="after")
    def _grows(self):
        if len(self.commanded) != len(self.actual):
            raise ValueError(
                f"{len(self.commanded)} commanded times and {len(self.actual)} actual ones, expected as many; correct it"
            )
        for name in ("commanded", "actual"):
            times = getattr(self, name)
            if any(b <= a for a, b in pairwise(times)) or times[0] < 0:
                raise ValueError(f"{name} times must grow, from 0 or more; correct their order")
        return self


class Chamber(File):
    """One chamber profile."""

    chamber: Name = Field(description="name of the profile, that of the file")
    title: str = Field("", description="one line on when and for what the profile was made")
    saturation_time: SaturationTime = Field(description="times that fill the range")
    filter_wheel: dict[Slot, Wavelength] = Field(
        description="wavelength [nm] at each filter position; 0 neutral density, 2000 open"
    )
    mirror: dict[Slot, float] = Field(
        description="mirror position of best focus for each filter position [mm]"
    )
    fwhm: dict[Wavelength, Annotated[float, Field(gt=0)]] = Field(
        description="expected best FWHM [px], by wavelength [nm]"
    )
    optics: Optics | None = Field(None, description="size of a spot without the detector, if measured")
    pattern: str | Positions | None = Field(
        None, description="spot pattern: a name in chambers/patterns/, a path, or the positions themselves"
    )
    shutter: str | None = Field(None, description="shutter table: a name in chambers/shutters/, or a path")
    history: list[History] = Field([], description="who changed what, when, from which result")

    _cache: dict = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self):
        waves = list(self.filter_wheel.values())
        double = sorted({wave for wave in waves if waves.count(wave) > 1})
        if double:
            raise ValueError(f"filter_wheel has {double[0]} nm twice; a wavelength belongs to one position")
        if set(self.mirror) != set(self.filter_wheel):
            raise ValueError("mirror and filter_wheel must have the same positions; add the missing ones")
        return self

    # ---- what campaign asks
    def t_flat(self, wavelength: int) -> float:
        """Saturation time of the flat source [s]; `wavelength` in nm."""
        return self._look_up(self.saturation_time.flat, wavelength, ("saturation_time", "flat"))

    def t_point(self, wavelength: int) -> float:
        """Saturation time of the point source [s]; `wavelength` in nm."""
        return self._look_up(self.saturation_time.point, wavelength, ("saturation_time", "point"))

    def slot(self, wavelength: int) -> int:
        """Filter position of a wavelength [nm]."""
        slots = {wave: slot for slot, wave in self.filter_wheel.items()}
        return self._look_up(slots, wavelength, ("filter_wheel",))

    def wavelength(self, slot: int) -> int:
        """Wavelength [nm] at a filter position."""
        if slot not in self.filter_wheel:
            raise self.error(
                ("filter_wheel",), f"chamber {self.chamber} has no filter position {slot}", "add it"
            )
        return self.filter_wheel[slot]

    def mirror_nominal(self, slot: int) -> float:
        """Mirror position of best focus for a filter position [mm]."""
        if slot not in self.mirror:
            raise self.error(
                ("mirror",),
                f"chamber {self.chamber} has no mirror position for filter position {slot}",
                "add it",
            )
        return self.mirror[slot]

    def expected_fwhm(self, wavelength: int) -> float:
        """Expected best FWHM [px]; `wavelength` in nm."""
        return self._look_up(self.fwhm, wavelength, ("fwhm",))

    def _look_up(self, table: dict, wavelength: int, path: tuple):
        if wavelength not in table:
            what = " ".join(path).replace("_", " ")
            has = ", ".join(str(wave) for wave in table)
            raise self.error(
                path,
                f"chamber {self.chamber} has no {what} for {wavelength} nm (it has {has})",
                "add it, or use another chamber profile",
            )
        return table[wavelength]

    # ---- data files, read when asked for
    def spots(self) -> Pattern:
        """The spot pattern; `ConfigError` if the chamber has none."""
        if self.pattern is None:
            raise self.error(
                ("pattern",), f"chamber {self.chamber} has no spot pattern", "name one, e.g. pattern: B_JAN19"
            )
        if isinstance(self.pattern, dict):
            return Pattern(pattern=self.chamber, positions=self.pattern)
        if "pattern" not in self._cache:
            self._cache["pattern"] = Pattern.load(self._data_file("patterns", self.pattern, "pattern"))
        return self._cache["pattern"]

    def shutter_table(self) -> ShutterTable | None:
        """The shutter table, None if the chamber names none."""
        if self.shutter is None:
            return None
        if "shutter" not in self._cache:
            self._cache["shutter"] = ShutterTable.load(self._data_file("shutters", self.shutter, "shutter"))
        return self._cache["shutter"]

    def _data_file(self, kind: str, name: str, key: str) -> Path:
        from calcamp.config.lookup import find_file

        try:
            return find_file(f"chambers/{kind}", name, self.folder)
        except ConfigError as error:
            raise self.error((key,), error.message, error.remedy) from None
