"""Detector YAML: sizes of a CCD and the detector data that analyses need."""

from __future__ import annotations

from pydantic import Field, model_validator

from calcamp.config.shape import File, Name
from calcamp.detector.geometry import Detector


class DetectorFile(File):
    """One detector: sizes and what analyses need to know of it."""

    name: Name = Field(description="name of the detector, that of the file")
    image_columns: int = Field(2048, gt=0, description="image columns of a quadrant")
    image_rows: int = Field(2066, gt=0, description="image rows of a quadrant")
    prescan: int = Field(51, ge=0, description="serial prescan columns of a quadrant")
    overscan: int = Field(20, ge=0, description="serial overscan columns of a quadrant")
    parallel_overscan: int = Field(20, ge=0, description="parallel overscan rows of a quadrant")
    injection_rows: int = Field(4, ge=0, description="physical rows between the halves, never read out")
    pixel_um: float = Field(12.0, gt=0, description="pixel pitch [um]")
    nominal_gain: float = Field(3.5, gt=0, description="gain until the block has a measured one [e-/ADU]")
    full_scale: int = Field(65535, gt=0, description="highest value of the ADC [ADU]")
    tiles: list[int] = Field(
        [8, 8], min_length=2, max_length=2, description="rows, columns of the tile grid of a quadrant"
    )
    min_column_length: int = Field(200, gt=0, description="bad pixels that make a column defect [px]")
    lock_shift_px: float = Field(
        300, gt=0, description="shift up to which the star lock must find the pattern [px]"
    )
    commanded_rows: int = Field(2086, gt=0, description="vend of a full read, as commanded in scripts")
    commanded_image_rows: int = Field(2066, gt=0, description="vend of a read without parallel overscan")
    pixel_time_s: float = Field(14.3e-6, gt=0, description="read-out time of a pixel [s]")
    trims: dict[str, list[int]] = Field(
        {"pre": [25, 5], "img": [5, 5], "ove": [5, 5]},
        description="columns dropped at the low and the high canonical side of a region, for statistics",
    )

    @model_validator(mode="after")
    def _trims_fit(self):
        widths = {"pre": self.prescan, "img": self.image_columns, "ove": self.overscan}
        if set(self.trims) != set(widths):
            raise ValueError(f"trims has {sorted(self.trims)}, expected pre, img and ove; correct it")
        for region, trim in self.trims.items():
            if len(trim) != 2 or min(trim) < 0 or sum(trim) >= widths[region]:
                raise ValueError(
                    f"trims of {region} are {trim}, expected two numbers that leave some of its {widths[region]} columns; correct it"
                )
        if min(self.tiles) < 1:
            raise ValueError("tiles must be at least 1 x 1; correct it")
        return self

    def detector(self) -> Detector:
        return Detector.from_dict(self.model_dump())
