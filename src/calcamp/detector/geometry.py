"""Geometry of a CCD as data: sizes, quadrants, regions, orientation, coordinate systems.

Arrays are ``[row, column]``, 0-based. *Canonical* orientation of a quadrant puts its read-out node
at [0, 0]: prescan, image, overscan along the columns, parallel overscan after the image rows, the
same [row, column] being read at the same instant in all quadrants.

The four coordinate systems (x along columns, y along rows, pixel centres at integers):

``ccd``   the image as stored in FITS; (0, 0) is the first pixel read of quadrant H
``qrel``  one quadrant in the orientation of the CCD image
``qcan``  one quadrant in canonical orientation
``phys``  the silicon: no prescan, overscan or parallel overscan, injection rows included

Conversions use only arithmetic, so they take numbers or numpy arrays.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

QUADRANTS = ("E", "F", "G", "H")
CCDS = (1, 2, 3)

#: The two halves of a CCD. The words top and bottom are not used: sources contradict each other.
HALVES = {"half_EF": ("E", "F"), "half_GH": ("G", "H")}
#: Which half a commanded script key acts on, by the key's ending (test catalogue, section 3).
SCRIPT_SUFFIX_HALF = {"T": "half_GH", "B": "half_EF"}
#: Which half a house-keeping or voltage-calibration name refers to, by its ending (data formats, 4.6).
HK_SUFFIX_HALF = {"T": "half_EF", "B": "half_GH"}

# Column and row flips that bring the stored quadrant to canonical orientation.
_FLIP_ROWS = {"E": True, "F": True, "G": False, "H": False}
_FLIP_COLUMNS = {"E": False, "F": True, "G": True, "H": False}

REGIONS = ("pre", "img", "ove", "pov")


def half_of(quadrant: str) -> str:
    """The half, ``half_EF`` or ``half_GH``, that `quadrant` belongs to."""
    return next(half for half, members in HALVES.items() if quadrant in members)


def flips(quadrant: str) -> tuple[bool, bool]:
    """(flip rows, flip columns) between the stored and the canonical orientation; its own inverse."""
    return _FLIP_ROWS[quadrant], _FLIP_COLUMNS[quadrant]


def canonical_sign_e2(quadrant: str) -> int:
    """Sign that takes e2 (elongation along +x+y) from canonical to CCD orientation.

    One flip of the two axes mirrors the ellipse and changes the sign; two flips do not. Canonical e2
    therefore changes sign for E and G. e1 never changes.
    """
    rows, columns = flips(quadrant)
    return -1 if rows != columns else 1


@dataclass(frozen=True)
class Detector:
    """Sizes of one CCD, in pixels, and the detector data that analyses need.

    ``trims`` gives, per region, the columns dropped at the low and at the high canonical side.
    """

    name: str
    image_columns: int = 2048  # per quadrant
    image_rows: int = 2066  # per quadrant
    prescan: int = 51
    overscan: int = 20
    parallel_overscan: int = 20
    injection_rows: int = 4  # physical rows between the halves, never read
    pixel_um: float = 12.0
    nominal_gain: float = 3.5  # e-/ADU, until the block has a measured gain
    full_scale: int = 65535  # ADU
    tiles: tuple[int, int] = (8, 8)  # rows, columns of the tile grid of a quadrant
    min_column_length: int = 200  # bad pixels that make a column defect (old rule)
    lock_shift_px: float = 300.0  # the star lock must find shifts up to this
    commanded_rows: int = 2086  # rows of a full read as commanded in scripts
    commanded_image_rows: int = 2066  # rows of a read without parallel overscan, as commanded
    pixel_time_s: float = 14.3e-6  # read-out time of one pixel
    trims: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"pre": (25, 5), "img": (5, 5), "ove": (5, 5)}
    )

    # ---- sizes -----------------------------------------------------------------------------------
    @property
    def columns(self) -> int:
        """Columns of a quadrant, scans included."""
        return self.prescan + self.image_columns + self.overscan

    @property
    def rows(self) -> int:
        """Rows of a quadrant, parallel overscan included."""
        return self.image_rows + self.parallel_overscan

    @property
    def quadrant_shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def image_shape(self) -> tuple[int, int]:
        """Image area of a quadrant, (rows, columns)."""
        return self.image_rows, self.image_columns

    @property
    def ccd_shape(self) -> tuple[int, int]:
        """Shape of a stored frame, (NAXIS2, NAXIS1)."""
        return 2 * self.rows, 2 * self.columns

    @property
    def phys_shape(self) -> tuple[int, int]:
        """(rows, columns) of the silicon, injection rows included."""
        return 2 * self.image_rows + self.injection_rows, 2 * self.image_columns

    def as_dict(self) -> dict:
        """Plain data, as written in step options and product headers; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Detector:
        data = dict(data)
        data["tiles"] = tuple(data.get("tiles", (8, 8)))
        if "trims" in data:
            data["trims"] = {key: tuple(value) for key, value in data["trims"].items()}
        return cls(**data)

    # ---- quadrants and regions -------------------------------------------------------------------
    def origin(self, quadrant: str) -> tuple[int, int]:
        """(row, column) of the quadrant's lower-left corner in the stored frame."""
        return (self.rows if quadrant in "EF" else 0, self.columns if quadrant in "FG" else 0)

    def quadrant_slices(self, quadrant: str) -> tuple[slice, slice]:
        """Slices of the stored frame that cut out `quadrant` (stored orientation)."""
        row, column = self.origin(quadrant)
        return slice(row, row + self.rows), slice(column, column + self.columns)

    def read_rows(self, vstart: int = 0, vend: int | None = None) -> tuple[int, int]:
        """Canonical rows [first, last) that a commanded window reads.

        Scripts command rows of the full-size CCD. A full read stays a full read, and a read up to the
        last image row stays that, on a detector of another size.
        """
        vend = self.commanded_rows if vend is None else vend
        if vend >= self.commanded_rows:
            last = self.rows
        elif vend >= self.commanded_image_rows:
            last = self.image_rows
        else:
            last = min(vend, self.image_rows)
        return min(vstart, last), last

    def region(
        self, name: str, vstart: int = 0, vend: int | None = None, trimmed: bool = True
    ) -> tuple[slice, slice]:
        """Canonical (row, column) slices of a region inside the rows that were read.

        ``pre``, ``img`` and ``ove`` span the image rows; ``pov`` is the parallel overscan under the
        image columns. `trimmed` drops the columns listed in ``trims`` (``img`` for ``pov``).
        """
        first, last = self.read_rows(vstart, vend)
        starts = {
            "pre": 0,
            "img": self.prescan,
            "ove": self.prescan + self.image_columns,
            "pov": self.prescan,
        }
        widths = {
            "pre": self.prescan,
            "img": self.image_columns,
            "ove": self.overscan,
            "pov": self.image_columns,
        }
        low, high = self.trims["img" if name == "pov" else name] if trimmed else (0, 0)
        columns = slice(starts[name] + low, starts[name] + widths[name] - high)
        if name == "pov":
            return slice(
                min(max(first, self.image_rows), last), max(last, min(self.image_rows, last))
            ), columns
        return slice(first, min(self.image_rows, last)), columns

    def tile_edges(self) -> tuple[list[int], list[int]]:
        """Row and column edges of the tile grid over the image area, whole area covered."""
        rows, columns = self.tiles
        return (
            [round(k * self.image_rows / rows) for k in range(rows + 1)],
            [round(k * self.image_columns / columns) for k in range(columns + 1)],
        )

    # ---- coordinates -----------------------------------------------------------------------------
    def qrel_to_ccd(self, x, y, quadrant: str):
        row, column = self.origin(quadrant)
        return x + column, y + row

    def ccd_to_qrel(self, x, y, quadrant: str):
        row, column = self.origin(quadrant)
        return x - column, y - row

    def qrel_to_qcan(self, x, y, quadrant: str):
        """Its own inverse."""
        flip_rows, flip_columns = flips(quadrant)
        return (self.columns - 1 - x if flip_columns else x), (self.rows - 1 - y if flip_rows else y)

    qcan_to_qrel = qrel_to_qcan

    def qcan_to_ccd(self, x, y, quadrant: str):
        return self.qrel_to_ccd(*self.qcan_to_qrel(x, y, quadrant), quadrant)

    def ccd_to_qcan(self, x, y, quadrant: str):
        return self.qrel_to_qcan(*self.ccd_to_qrel(x, y, quadrant), quadrant)

    def quadrant_at(self, x: float, y: float) -> str:
        """Quadrant of a CCD position."""
        right, upper = x >= self.columns - 0.5, y >= self.rows - 0.5
        return {(False, True): "E", (True, True): "F", (True, False): "G", (False, False): "H"}[right, upper]

    def ccd_to_phys(self, x, y, quadrant: str):
        """Silicon position of a CCD position in the image area of `quadrant`.

        Defined for image pixels; for others the result lies outside the quadrant's silicon and
        `in_image` tells so.
        """
        dx = self.prescan + (2 * self.overscan if quadrant in "FG" else 0)
        dy = 2 * self.parallel_overscan - self.injection_rows if quadrant in "EF" else 0
        return x - dx, y - dy

    def phys_to_ccd(self, x, y, quadrant: str):
        dx = self.prescan + (2 * self.overscan if quadrant in "FG" else 0)
        dy = 2 * self.parallel_overscan - self.injection_rows if quadrant in "EF" else 0
        return x + dx, y + dy

    def quadrant_at_phys(self, x: float, y: float) -> str | None:
        """Quadrant of a silicon position, None on the injection rows between the halves."""
        if not (-0.5 <= x < 2 * self.image_columns - 0.5 and -0.5 <= y < self.phys_shape[0] - 0.5):
            return None
        if self.image_rows - 0.5 <= y < self.image_rows + self.injection_rows - 0.5:
            return None
        right, upper = x >= self.image_columns - 0.5, y >= self.image_rows + self.injection_rows - 0.5
        return {(False, True): "E", (True, True): "F", (True, False): "G", (False, False): "H"}[right, upper]

    def in_image(self, x, y):
        """Whether a canonical position lies on an image pixel (elementwise for arrays)."""
        return (
            (x >= self.prescan) & (x < self.prescan + self.image_columns) & (y >= 0) & (y < self.image_rows)
        )
