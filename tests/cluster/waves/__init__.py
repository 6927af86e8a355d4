"""A small experiment for the tests of jobs, processes, signals and sweeps."""
