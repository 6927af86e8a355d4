"""Errors a user can act on: one line that says where, what is wrong, and what to do."""

from __future__ import annotations


class PhysmlError(Exception):
    """Base of the errors below; commands print it in one line and exit with code 2."""

    def __init__(self, where: object, what: str, remedy: str) -> None:
        """Args: `where` the file, structure or option; `what` is wrong; `remedy` what to do."""
        self.where, self.what, self.remedy = str(where), what, remedy
        super().__init__(self.where, what, remedy)

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.what}; {self.remedy}".split())


class DataError(PhysmlError):
    """Input data are missing, damaged or outside what the physics allows."""


class ConfigError(PhysmlError):
    """An option or argument is wrong, before any work has started."""


class TrainingError(PhysmlError):
    """A fit or minimisation could not reach a valid answer."""
