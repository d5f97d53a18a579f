"""Repeatable measurements: what things cost, beside the machine's I/O floor for the same bytes."""
