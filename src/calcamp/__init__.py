"""calcamp: calibration of CCD blocks during a ground campaign.

The floors of the house are described in docs/architecture.md. Nothing is imported here: the
package is loaded by every job, so each module pays only for what it uses.
"""

__version__ = "0.1.0"
