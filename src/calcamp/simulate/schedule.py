"""Which exposures a session takes, with OBSIDs and times."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from calcamp.campaign.core import CampaignError, Test, find_test
from calcamp.data.elvis import SCRIPT_DEFAULTS
from calcamp.data.files import InputError
from calcamp.data.names import parse_day_folder
from calcamp.simulate.acquisition import mean_temperature_k
from calcamp.simulate.chain import missing_features
from calcamp.simulate.exposure import Exposure
from calcamp.simulate.faults import Fault, placed

DEFAULT_FIRST_OBSID = 1000
DEFAULT_HOUR = 7  # of the first day, where no start is given
_LONG_LIGHT_S = 100.0  # exposures to light that can leave a latent image
_PAUSE_S = 60  # between two tests


@dataclass(frozen=True)
class Request:
    """A test to be taken; ``obsids`` [first, last] where the session fixes them."""

    name: str
    test: Test
    obsids: tuple[int, int] | None = None


def requests_of(session, only=()) -> tuple[list[Request], list[str]]:
    """(tests to be taken, notes on those left out) of a session, in its order.

    A test with data of another session takes no exposures, nor one that reads the rows of a surrogate which another
    test of the session takes. Where none does (MOT_FF alone), its own columns are taken under the surrogate's name.
    """
    wanted, notes, known = [], [], list(session.tests)
    owned = {name.partition(".")[0] for name, entry in session.tests.items() if entry.data is None}
    taken: set[str] = set()
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(
            f"the session has no test {unknown[0]}", file=session.file, expected=f"one of {', '.join(known)}"
        )
    for name, entry in session.tests.items():
        if only and name not in only:
            continue
        try:
            test = find_test(name.partition(".")[0])
        except CampaignError as error:
            raise InputError(str(error), file=session.file, where=f"tests.{name}") from error
        if entry.data is not None:
            notes.append(f"{name}: takes its data from another session, nothing to simulate")
        elif test.log_name != test.name and {test.log_name} & (owned | taken):
            notes.append(f"{name}: reads the exposures of {test.surrogate}, nothing to simulate")
        else:
            taken |= {test.log_name} - {test.name}
            wanted.append(Request(name, test, tuple(entry.obsids) if entry.obsids else None))
    if not wanted:
        raise InputError("no test of the session takes exposures of its own", file=session.file)
    return wanted, notes


def schedule(
    requests: list[Request],
    chamber,
    equipment: dict[str, object],
    start: datetime,
    seed: int,
    first_obsid: int | None = None,
    faults: tuple[Fault, ...] = (),
) -> tuple[list[Exposure], tuple[Fault, ...]]:
    """(exposures in order of time, faults with their places filled in).

    Parameters
    ----------
    equipment : keys that every exposure carries: programme, operator, serials.
    faults : those of the sequence are applied here, those of the signal become disturbances.

    Raises
    ------
    InputError : OBSIDs that do not fit, a test that cannot be simulated, a fault without its place.
    """
    frames = _numbered(requests, chamber, equipment, first_obsid)
    faults = tuple(placed(fault, [exposure.obsid for _, exposure in frames]) for fault in faults)
    for fault in faults:
        frames = _disturb_sequence(frames, fault)
    exposures = _timed(frames, start, seed)
    return [_disturbed(exposure, faults) for exposure in exposures], faults


def _numbered(requests, chamber, equipment, first_obsid) -> list[tuple[str, Exposure]]:
    """(entry's name, exposure) of all tests, with OBSIDs, in order of OBSID."""
    frames: list[tuple[str, Exposure]] = []
    following = DEFAULT_FIRST_OBSID if first_obsid is None else first_obsid
    for request in requests:
        try:
            columns = request.test.columns(chamber)
        except CampaignError as error:
            raise InputError(f"{request.name}: {error}") from error
        count = sum(column.frames for column in columns)
        obsid = _first_of(request, count, following)
        for number, column in enumerate(columns, start=1):
            keys = {**SCRIPT_DEFAULTS, **column.keys, **equipment}
            for frame in range(1, column.frames + 1):
                warm = request.test.family == "warm"
                exposure = Exposure(
                    obsid, keys, request.test.log_name, number, frame, warm=warm, set_k=_set_k(request.test)
                )
                _check_simulable(request.name, exposure)
                frames.append((request.name, exposure))
                obsid += 1
        following = obsid
    frames.sort(key=lambda item: item[1].obsid)
    obsids = [exposure.obsid for _, exposure in frames]
    doubles = [a for a, b in pairwise(obsids) if a == b]
    if doubles:
        raise InputError(
            f"OBSID {doubles[0]} belongs to two tests", remedy="Correct the OBSID limits of the session"
        )
    return frames


def _first_of(request: Request, count: int, following: int) -> int:
    if request.obsids is None:
        return following
    first, last = request.obsids
    if last - first + 1 != count:
        raise InputError(
            f"{request.name} takes {count} exposures, but its OBSID limits [{first}, {last}] hold {last - first + 1}",
            expected=f"obsids: [{first}, {first + count - 1}]",
        )
    return first


def _check_simulable(name: str, exposure: Exposure) -> None:
    missing = missing_features(exposure)
    if missing:
        what = {"light": "light of a lamp", "inject": "charge injection", "pump": "trap pumping"}
        raise InputError(
            f"{name} needs {' and '.join(what[m] for m in sorted(missing))}, which cannot be simulated yet",
            remedy="Name the tests to simulate with --test",
        )


def _disturb_sequence(frames: list[tuple[str, Exposure]], fault: Fault) -> list[tuple[str, Exposure]]:
    """Frames with one lost, added or taken again; later OBSIDs move only as far as they must."""
    if fault.name not in ("missing_frame", "extra_frame", "aborted_restart"):
        return frames
    place = next((i for i, (_, exposure) in enumerate(frames) if exposure.obsid == fault.obsid), None)
    if place is None:
        raise InputError(f"fault {fault.name}: OBSID {fault.obsid} is lost by another fault")
    if fault.name == "missing_frame":
        return frames[:place] + frames[place + 1 :]
    name = frames[place][0]
    if fault.name == "extra_frame":
        added = [frames[place]]
    else:
        begin = next(i for i, frame in enumerate(frames) if frame[0] == name)
        added = frames[begin : place + 1]
    result = frames[: place + 1]
    for entry, exposure in [*added, *frames[place + 1 :]]:
        obsid = result[-1][1].obsid + 1 if entry == name else max(exposure.obsid, result[-1][1].obsid + 1)
        result.append((entry, replace(exposure, obsid=obsid)))
    return result


def _set_k(test) -> float | None:
    """Temperature that the name of a test asks of the operator, e.g. PTC02_148K."""
    found = re.search(r"_(\d{3})K$", test.log_name)
    return float(found.group(1)) if found else None


def _timed(frames: list[tuple[str, Exposure]], start: datetime, seed: int) -> list[Exposure]:
    now, before, timed = start, None, []
    for name, exposure in frames:
        if before not in (None, name):
            now += timedelta(seconds=_PAUSE_S)
        elapsed = (now - start).total_seconds()
        middle = elapsed + exposure.exptime / 2
        temperatures = {
            ccd: mean_temperature_k(seed, ccd, middle, exposure.warm, exposure.set_k) for ccd in (1, 2, 3)
        }
        lit = tuple(
            (elapsed - e.elapsed_s - e.exptime, e.keys)
            for e in timed[-40:]
            if int(e.keys.get("shuttr", 0)) and e.exptime >= _LONG_LIGHT_S
        )
        placed_ = replace(exposure, start=now, elapsed_s=elapsed, temperature_K=temperatures, lit_before=lit)
        timed.append(placed_)
        now, before = placed_.end, name
    return timed


def _disturbed(exposure: Exposure, faults: tuple[Fault, ...]) -> Exposure:
    found = [fault.disturbance() for fault in faults if fault.hits(exposure.obsid)]
    keys = exposure.keys
    for fault in faults:
        if fault.name == "wrong_serial" and fault.hits(exposure.obsid):
            for ccd in (1, 2, 3) if fault.ccd is None else (fault.ccd,):
                keys = {**keys, f"sn_ccd{ccd}": "99999-99-99"}
    return replace(exposure, keys=keys, disturbances=tuple(d for d in found if d is not None))


def start_of(folders: list[Path], given: datetime | None) -> datetime:
    """Start of the session: the one given, else seven o'clock of the first day-folder's date."""
    if given is not None:
        return given
    try:
        day = parse_day_folder(folders[0].name)
    except ValueError as error:
        raise InputError(str(error), remedy="Give the date with --start") from error
    return datetime(day.year, day.month, day.day, DEFAULT_HOUR)


def folder_for(folders: list[Path], moment: datetime) -> Path:
    """Day-folder of an exposure: a session past midnight goes on in its folder unless the next day has one."""
    chosen = folders[0]
    for folder in folders[1:]:
        try:
            if parse_day_folder(folder.name) <= moment.date():
                chosen = folder
        except ValueError:
            continue
    return chosen
