"""Read-out of the rows: charge of the image area becomes a stream of lines with scans."""

from __future__ import annotations

from calcamp.simulate.chain import Plugin, State


class Readout(Plugin):
    """Puts the charge of the image area between the scans. Reversed parallel clocks bring none."""

    name, stage, order = "readout", "transfer", 0

    def apply(self, state: State):
        signal = state.need_signal()
        if state.charge is None or not state.exposure.reads_charge:
            state.charge = None
            return
        rows, columns = state.detector.region("img", trimmed=False)
        signal[rows, columns] += state.charge
        state.charge = None


PLUGINS = (Readout(),)
