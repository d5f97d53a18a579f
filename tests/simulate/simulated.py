"""Sessions simulated for the tests of this folder."""

import hashlib
from pathlib import Path

from calcamp.config.lookup import load_block, load_chamber, load_detector, load_session
from calcamp.simulate import simulate_session

TESTS = """
  BIAS02: {obsids: [17273, 17282]}
  BIAS01: {obsids: [17283, 17292]}
  DARK01: {}
"""


def write_session(folder: Path, tests: str = TESTS, day_folders: str = "[12_Mar_19]") -> Path:
    path = folder / "D11.yaml"
    path.write_text(
        f"session: D11\nblock: NOSTROMO\ndata: {{root: data, day_folders: {day_folders}}}\nresults: results\ntests:{tests}",
        encoding="utf-8",
    )
    return path


def simulate(folder: Path, tests: str = TESTS, day_folders: str = "[12_Mar_19]", **options):
    """A simulated session below `folder`, with the mini CCD unless another is given."""
    session = load_session(write_session(folder, tests, day_folders))
    block = load_block(session.block, session.folder)
    chamber = load_chamber(block.chamber, session.folder)
    options.setdefault("detector", load_detector("ccd273-mini"))
    return simulate_session(session, block, chamber, **options)


def digests(folder: Path) -> dict[str, str]:
    """Content of all files below `folder`."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
