"""Plug-ins of the signal chain, one module per group of effects, each with a tuple ``PLUGINS``."""
