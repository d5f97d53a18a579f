"""Faults on request, for the tests of the workflow and of the monitor: a day-folder that misbehaves, a killer."""
