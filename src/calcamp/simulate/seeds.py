"""Random streams that depend on what they are for, never on the order of the work."""

from __future__ import annotations

from zlib import crc32

import numpy as np


def stream(seed: int, *key: int | str) -> np.random.Generator:
    """Generator for one purpose, e.g. ``stream(seed, "frame", obsid, ccd, quadrant, plugin)``.

    Equal keys give equal streams; streams of different keys are independent (`SeedSequence`).
    SFC64 is used because it is the fastest bit generator of numpy for 32-bit draws.
    """
    words = tuple(crc32(part.encode()) if isinstance(part, str) else int(part) for part in key)
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(int(seed), spawn_key=words)))
