"""Floor 0: what a detector is. Geometry, orientation, regions, data-quality bits.

``geometry`` and ``dq`` use the standard library only (the Snakefile is parsed by every job);
``arrays`` holds what needs numpy.
"""
