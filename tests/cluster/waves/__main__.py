"""Command line of this experiment."""

from physml.run import main

main("waves")
