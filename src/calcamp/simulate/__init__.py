"""Floor 4: an emulator of CCDs, chamber and ELVIS.

One signal chain in electrons with ordered plug-ins (``chain``, ``plugins/``), a block with a truth
drawn from a seed (``scene``), the schedule of a session (``schedule``), what ELVIS writes
(``acquisition``), faults on request (``faults``), and a session as files (``session``).
"""

from __future__ import annotations

_PUBLIC = {
    "simulate_session": "calcamp.simulate.session",
    "simulate_frame": "calcamp.simulate.scene",
    "expected_frame": "calcamp.simulate.scene",
    "draw_channel": "calcamp.simulate.scene",
    "Scene": "calcamp.simulate.scene",
    "Exposure": "calcamp.simulate.exposure",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
