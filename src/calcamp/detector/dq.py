"""Data-quality bits of a prepared image, one uint32 per pixel."""

from __future__ import annotations

from enum import IntFlag


class DQ(IntFlag):
    """Bits of the ``DQ`` plane. The values are part of the file format: never renumber them."""

    HOT = 1 << 0  # dark rate above the limit
    BRIGHT_COL = 1 << 1  # column bright in the dark
    DEAD = 1 << 2  # flat response below 0.5
    LOW = 1 << 3  # flat response 0.5 to 0.8
    OVER = 1 << 4  # flat response above 1.5
    HIGH = 1 << 5  # flat response 1.2 to 1.5
    BAD_COL = 1 << 6  # rows of a column where a defect was detected
    TRAP = 1 << 7
    SATURATED = 1 << 8  # at or above the saturation level, grown
    LOST = 1 << 9  # 0 ADU inside the read window
    COSMIC = 1 << 10
    NON_IMAGE = 1 << 11  # scans and rows outside the read window
    UNSTABLE = 1 << 12  # not repeatable between frames (random telegraph signal)
    PERSIST = 1 << 13
    FLAT_INVALID = 1 << 14  # flat product has no usable value here
    CLUSTER = 1 << 15  # member of a group of touching defects
    PARTIAL_COL = 1 << 16  # column defect that starts inside the array
    INJECTION_BAD = 1 << 17  # column that cannot be injected
    MASKED = 1 << 18  # set in a 0/1 mask of the predecessor, kind unknown
    NO_OFFSET = 1 << 19  # the row's offset could not be measured
    WHOLE_COL = 1 << 20  # old rule: column with >= 200 bad pixels, flagged over all rows


#: Pixels with any of these bits are left out of every measurement.
BADMASK = (
    DQ.HOT
    | DQ.BRIGHT_COL
    | DQ.DEAD
    | DQ.OVER
    | DQ.BAD_COL
    | DQ.SATURATED
    | DQ.LOST
    | DQ.COSMIC
    | DQ.MASKED
    | DQ.NO_OFFSET
)


def describe(value: int) -> str:
    """Names of the bits set in `value`, joined by ``|`` (``good`` when none is)."""
    return "|".join(bit.name for bit in DQ if value & bit) or "good"
