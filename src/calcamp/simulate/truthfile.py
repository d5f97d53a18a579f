"""What went into a simulation, as files beside the data: JSON, and arrays as NPZ.

No step of the pipeline reads them: they are for tests and for people.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import calcamp
from calcamp.data.files import InputError, replacing, write_json
from calcamp.simulate.chain import ChannelTruth
from calcamp.simulate.exposure import Exposure, row_time_s
from calcamp.simulate.plugins.dark import temperature_factor
from calcamp.simulate.scene import Scene

SCHEMA = "calcamp-truth-1"
_INLINE = 64  # longer arrays go to the NPZ


def truth_path(truth: Path | str | None, data_root: Path, session: str) -> Path:
    """The JSON file: `truth` itself, a file of the session's name in it, or in ``<data root>_truth``."""
    if truth is None:
        folder = data_root.resolve()
        return folder.parent / f"{folder.name}_truth" / f"{session}_truth.json"
    truth = Path(truth)
    return truth if truth.suffix == ".json" else truth / f"{session}_truth.json"


def refuse_inside(path: Path, folders) -> None:
    """`InputError` when the truth would lie in a day-folder, where the pipeline reads."""
    for folder in folders:
        if Path(folder).resolve() in path.resolve().parents:
            raise InputError(
                f"the truth would lie in the day-folder {folder}", file=path, remedy="Give another --truth"
            )


def channel_truth(truth: ChannelTruth) -> tuple[dict, dict[str, np.ndarray]]:
    """(plain data, long arrays) of a channel."""
    dark, response = truth["dark"], truth["response"]
    plain = {
        "ccd": truth.ccd,
        "quadrant": truth.quadrant,
        "gain_e_adu": truth.gain,
        "read_noise_adu": truth.read_noise,  # before the ADC, which adds 1/12 ADU2
        "offset_adu": truth.offset,
        "dark_e_s": truth.dark_e_s,
        "dark_e_h": 3600 * truth.dark_e_s,
        "dsnu_e_h": 3600 * dark["dsnu_e_s"],
        # image-area canonical rows and columns, as everywhere
        "hot_pixels": _rows(dark, "hot_row", "hot_column", "hot_e_s"),
        "bright_columns": _rows(dark, "bright_column", "bright_first_row", "bright_e_s"),
        "rts_pixels": _rows(dark, "rts_row", "rts_column", "rts_low_e_s", "rts_high_e_s", "rts_duty"),
        "dead_pixels": _rows(response, "dead_row", "dead_column", "dead_response"),
        "dead_columns": _rows(response, "dead_columns", "dead_columns_first_row"),
        "params": {},
    }
    long = {}
    for plugin, values in truth.params.items():
        kept = {}
        for key, value in values.items():
            if isinstance(value, np.ndarray) and value.size > _INLINE:
                long[f"ccd{truth.ccd}_{truth.quadrant}_{plugin}_{key}"] = value
            else:
                kept[key] = value
        if kept:
            plain["params"][plugin] = kept
    return plain, long


def _rows(values: dict, *keys: str) -> list[list]:
    return [list(row) for row in zip(*(np.asarray(values[key]).tolist() for key in keys), strict=True)]


def write_truth(
    path: Path,
    scene: Scene,
    exposures: list[Exposure],
    records: dict[int, dict],
    about: dict,
) -> Path:
    """Write JSON and NPZ; `records` are {obsid: {ccd: {quadrant: what went into the frame}}}."""
    channels, arrays = [], {}
    for truth in scene.channels():
        plain, long = channel_truth(truth)
        channels.append(plain)
        arrays |= long
    npz = path.with_suffix(".npz")
    content = {
        "schema": SCHEMA,
        "calcamp_version": calcamp.__version__,
        "seed": scene.seed,
        **about,
        "detector": scene.detector.as_dict(),
        "settings": dict(scene.settings),
        "arrays": npz.name,
        "exposures": [_exposure(exposure, scene) for exposure in exposures],
        "channels": channels,
        "frames": [
            {"obsid": exposure.obsid, "ccd": ccd, "quadrant": quadrant, **record}
            for exposure in exposures
            for ccd, quadrants in sorted(records[exposure.obsid].items())
            for quadrant, record in sorted(quadrants.items())
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(npz, sync=False) as stream:
        np.savez_compressed(stream, **arrays)
    return write_json(path, content)


def _exposure(exposure: Exposure, scene: Scene) -> dict:
    return {
        "obsid": exposure.obsid,
        "test": exposure.test,
        "column": exposure.column,
        "frame": exposure.frame,
        "start": exposure.start.isoformat(),
        "exptime_s": exposure.exptime,
        "rdmode": exposure.read_mode,
        "row_time_s": row_time_s(exposure.keys, scene.detector),
        "temperature_K": {str(ccd): value for ccd, value in exposure.temperature_K.items()},
        "dark_factor": {str(ccd): temperature_factor(value) for ccd, value in exposure.temperature_K.items()},
    }
