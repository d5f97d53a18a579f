"""Quick look of raw images: small pictures and the statistics of the quadrants."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from pathlib import Path

from calcamp.data.names import parse_raw_name
from calcamp.data.raw import RawError, read_raw
from calcamp.detector.geometry import CCDS, QUADRANTS, Detector

BLOCK = 8  # pixels of the frame in one of the picture
KEPT = 40  # pictures kept


class ImageIndex:
    """Raw frames of a day-folder by OBSID and CCD, found by one listing."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.names: dict[int, dict[int, str]] = {}
        self._sizes: dict[str, tuple] = {}
        self._stable: set[str] = set()

    def look(self) -> None:
        """List the folder anew. A file is stable when two looks see the same size and time."""
        found: dict[int, dict[int, str]] = {}
        sizes: dict[str, tuple] = {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    name = parse_raw_name(entry.name)
                    if name is None or not entry.is_file(follow_symlinks=False):
                        continue
                    found.setdefault(name.obsid, {}).setdefault(name.ccd, entry.name)
                    if name.obsid not in self.names or entry.name not in self._stable:
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except OSError:
                            continue
                        sizes[entry.name] = (status.st_size, status.st_mtime_ns)
        except OSError:
            return
        for name, seen in sizes.items():
            if self._sizes.get(name) == seen:
                self._stable.add(name)
        self._sizes = sizes
        self.names = found

    @property
    def last(self) -> int | None:
        """Newest OBSID of which an image is stable."""
        return next(
            (
                o
                for o in sorted(self.names, reverse=True)
                if any(n in self._stable for n in self.names[o].values())
            ),
            None,
        )

    def path(self, obsid: int, ccd: int) -> Path | None:
        name = self.names.get(obsid, {}).get(ccd)
        return self.folder / name if name else None


def detector_of(shape: tuple[int, int], detectors: list[Detector]) -> Detector | None:
    """The detector whose frames have this shape."""
    return next((d for d in detectors if d.ccd_shape == tuple(shape)), None)


def known_detectors(beside: Path | None = None) -> list[Detector]:
    """All detectors of the configuration."""
    from calcamp.config.lookup import load_detector, names_of

    found = []
    for name in names_of("detectors", beside or Path.cwd()):
        try:
            found.append(load_detector(name, beside))
        except Exception:  # a broken file beside others must not take the quick look away
            continue
    return found


def zscale(values, contrast: float = 0.25) -> tuple[float, float]:
    """Display range after IRAF's zscale: a line through the sorted sample, outliers rejected."""
    import numpy as np

    sample = np.sort(np.asarray(values, float).ravel())
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return 0.0, 1.0
    if len(sample) > 4000:
        sample = sample[:: len(sample) // 2000]
    middle, x = float(np.median(sample)), np.arange(len(sample)) - len(sample) // 2
    good = np.ones(len(sample), bool)
    slope = offset = 0.0
    for _ in range(5):
        if good.sum() < max(5, len(sample) // 2):
            return float(sample[0]), float(sample[-1])
        slope, offset = np.polyfit(x[good], sample[good], 1)
        residual = sample - (slope * x + offset)
        good = np.abs(residual) <= 2.5 * max(residual[good].std(), 1e-9)
    half = slope / contrast * len(sample) / 2
    low, high = max(sample[0], middle - half), min(sample[-1], middle + half)
    return (float(low), float(high)) if high > low else (float(sample[0]), float(sample[-1]) + 1.0)


def equalised(values):
    """Values spread evenly over 0..255 by their rank (histogram equalisation)."""
    import numpy as np

    levels, counts = np.unique(values.astype(np.int64), return_counts=True)
    share = np.cumsum(counts) / counts.sum()
    return (255 * share[np.searchsorted(levels, values.astype(np.int64))]).astype(np.uint8)


def quadrant_statistics(data, detector: Detector) -> list[dict]:
    """Offset, read noise and level (ADU) of each quadrant: prescan median, clipped overscan, image median."""
    import numpy as np

    from calcamp.detector.arrays import quadrant_view

    out = []
    for quadrant in QUADRANTS:
        view = quadrant_view(data, quadrant, detector)
        pre, img, ove = (view[detector.region(name)] for name in ("pre", "img", "ove"))
        noise = ove.astype(float)
        # differences along a row leave out what is common to it; two readings make sqrt 2
        steps = np.diff(noise, axis=1)
        spread = 1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2) if steps.size else np.nan
        close = np.abs(steps) < 5 * max(spread, 0.7) * np.sqrt(2)
        noise_adu = steps[close].std() / np.sqrt(2) if close.any() else np.nan
        sample = img[::4, ::4]
        offset = float(np.median(pre)) if pre.size else None
        level = float(np.median(sample)) if sample.size else None
        out.append(
            {
                "quadrant": quadrant,
                "offset": offset,
                "noise": None if np.isnan(noise_adu) else round(float(noise_adu), 3),
                "level": None if level is None or offset is None else round(level - offset, 2),
                "saturated": int((view == detector.full_scale).sum()),
                "lost": int((view == 0).sum()),
            }
        )
    return out


def png(values, stretch: str = "zscale") -> bytes:
    """A grey PNG, first row of the frame at the bottom."""
    import numpy as np
    from PIL import Image

    if stretch == "equalised":
        grey = equalised(values)
    else:
        low, high = zscale(values)
        grey = (255 * np.clip((values - low) / (high - low), 0, 1)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey[::-1])).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


class QuickLook:
    """Pictures and statistics of frames, kept per file; one frame in memory at a time."""

    def __init__(self, index: ImageIndex, detectors: list[Detector]):
        self.index = index
        self.detectors = detectors
        self._kept: OrderedDict[tuple, dict] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, obsid: int, ccd: int) -> dict:
        """``{name, error, shape, quadrants, zscale, equalised}``; the last two are PNG bytes."""
        path = self.index.path(obsid, ccd) if ccd in CCDS else None
        if path is None:
            return {"name": None, "error": "no such image in the day-folder"}
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            return {"name": path.name, "error": "the file is gone"}
        key = (path.name, status.st_size, status.st_mtime_ns)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._make(path)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _make(self, path: Path) -> dict:
        from calcamp.analysis.sums import block_means

        try:
            raw = read_raw(path, verify=False)
        except RawError as error:
            if error.kind == "truncated":
                return {"name": path.name, "error": "still being written, or cut short"}
            return {"name": path.name, "error": error.text}
        detector = detector_of(raw.data.shape, self.detectors)
        small = block_means(raw.data, BLOCK) if min(raw.data.shape) >= 16 * BLOCK else raw.data.astype("f4")
        return {
            "name": path.name,
            "error": "" if detector else "no detector of the configuration has this shape",
            "shape": list(raw.data.shape),
            "quadrants": quadrant_statistics(raw.data, detector) if detector else [],
            "zscale": png(small),
            "equalised": png(small, "equalised"),
        }
