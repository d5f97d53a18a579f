"""Block YAML: 1 ROE + 1 RPSU + 3 CCDs, what is expected of them and their calibration products."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from calcamp.config.limits import Overrides, canonical_overrides
from calcamp.config.products import CCDS, QUADRANTS, Products, resolve_paths
from calcamp.config.shape import File, Name, Shape


class Hardware(Shape):
    """Serial numbers and the operator, as commanded in scripts and written in the EXP-LOG."""

    roe: str = Field("ROEXX", description="serial of the ROE, e.g. FM15 (sn_roe)")
    rpsu: str = Field("RPSUXX", description="serial of the RPSU (sn_rpsu)")
    ccd1: str = Field("CCD273-XX-X-XXX", description="serial of CCD1, e.g. 14888-88-81 (sn_ccd1)")
    ccd2: str = Field("CCD273-XX-X-XXX", description="serial of CCD2 (sn_ccd2)")
    ccd3: str = Field("CCD273-XX-X-XXX", description="serial of CCD3 (sn_ccd3)")
    operator: str = Field("unk", description="operator, three letters (operator)")


class Offsets(Shape):
    """Expected offset of each quadrant of a CCD."""

    E: float = Field(description="expected offset of quadrant E [ADU]")
    F: float = Field(description="expected offset of quadrant F [ADU]")
    G: float = Field(description="expected offset of quadrant G [ADU]")
    H: float = Field(description="expected offset of quadrant H [ADU]")


class Calibration(Shape):
    """Straight line from a house-keeping reading to the true value."""

    slope: float = Field(1.0, description="true value per read value")
    intercept: float = Field(0.0, description="true value at a reading of 0, in the unit of the key")


class Block(File):
    """One block."""

    block: Name = Field(description="nickname of the block, that of the file")
    title: str = Field("", description="one line on what this block is")
    chamber: str | None = Field(None, description="chamber profile: a name in chambers/, or a path")
    detector: str = Field("ccd273", description="detector: a name in detectors/, or a path")
    programme: str = Field("CALCAMP", description="programme name commanded in scripts (program)")
    flight_position: int | None = Field(
        None, ge=1, le=14, description="number of the block in the final focal plane"
    )
    hardware: Hardware = Field(default_factory=Hardware, description="serial numbers and operator")
    offsets: dict[Literal[1, 2, 3], Offsets] = Field(description="expected offsets by CCD and quadrant [ADU]")
    products: Products = Field(
        default_factory=Products, description="calibration products used for this block"
    )
    limits: Overrides = Field({}, description="limits of this block that differ from the limits file")
    hk_calibration: dict[str, Calibration] = Field(
        {},
        description="house-keeping key: line from the reading to the true value, from the ROE's own calibration",
    )

    @field_validator("offsets")
    @classmethod
    def _three(cls, value):
        missing = [str(ccd) for ccd in CCDS if ccd not in value]
        if missing:
            raise ValueError(f"no offsets for CCD {', '.join(missing)}, expected all three; add them")
        return value

    def expected_offset(self, ccd: int, quadrant: str) -> float:
        """Expected offset of a quadrant [ADU]."""
        return getattr(self.offsets[ccd], quadrant)

    def expected_offsets(self) -> dict[tuple[int, str], float]:
        """Expected offsets by (ccd, quadrant) [ADU]."""
        return {
            (ccd, quadrant): self.expected_offset(ccd, quadrant) for ccd in CCDS for quadrant in QUADRANTS
        }

    @property
    def equipment(self) -> dict[str, str]:
        """The six campaign values that go into every column of every script."""
        serials = {key: getattr(self.hardware, key) for key in ("ccd1", "ccd2", "ccd3", "roe", "rpsu")}
        return {"operator": self.hardware.operator, **{f"sn_{key}": value for key, value in serials.items()}}

    @property
    def serials(self) -> dict[str, str]:
        """``{"ccd1": .., "ccd2": .., "ccd3": .., "roe": .., "rpsu": ..}``."""
        return {key: getattr(self.hardware, key) for key in ("ccd1", "ccd2", "ccd3", "roe", "rpsu")}

    def known_serials(self) -> dict[str, str]:
        """`serials` without placeholders (``XX``): those that can be compared with files."""
        return {key: value for key, value in self.serials.items() if "XX" not in value}

    def product_paths(self) -> dict[str, object]:
        """The named products with absolute paths."""
        return {kind: resolve_paths(value, self.path_to) for kind, value in self.products.named().items()}

    def limit_overrides(self) -> dict[str, object]:
        """Own limits by canonical name, for `Limits.resolve`."""
        return canonical_overrides(self.limits)
