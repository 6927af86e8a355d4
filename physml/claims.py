"""Numbers that an experiment promises, and the table that says whether they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from physml.errors import ConfigError


class Claim(NamedTuple):
    """A number that an experiment promises for a preset.

    | field      | meaning                                                       |
    |------------|---------------------------------------------------------------|
    | `number`   | its name in the results                                       |
    | `unit`     |                                                               |
    | `low`      | smallest and ...                                              |
    | `high`     | ... largest value that keeps the promise                      |
    | `paper`    | the published value, if there is one                          |
    | `source`   | where that is published                                       |
    | `baseline` | name of the number of a trivial predictor, if there is one    |
    """

    number: str
    unit: str
    low: float
    high: float
    paper: float | None = None
    source: str = ""
    baseline: str | None = None


def check_claims(claims: Sequence[Claim], numbers: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row per claim: what was promised, what was measured, and whether it holds.

    Raises:
        ConfigError: a claim names a number that was not measured.
    """
    rows = []
    for claim in claims:
        for name in filter(None, (claim.number, claim.baseline)):
            if name not in numbers:
                raise ConfigError(name, "is claimed but not measured", "name a number of evaluate")
        value = float(numbers[claim.number])
        rows.append(
            {
                **claim._asdict(),
                "measured": value,
                "baseline_value": float(numbers[claim.baseline]) if claim.baseline else None,
                "holds": bool(claim.low <= value <= claim.high),
            }
        )
    return rows


def report(rows: Sequence[Mapping[str, Any]]) -> int:
    """Print the table of claims; 1 when one of them does not hold, else 0."""
    print(f"{'number':44s} {'measured':>10s} {'claimed':>21s} {'baseline':>9s} {'paper':>9s}")
    for row in rows:
        interval = f"[{row['low']:.5g}, {row['high']:.5g}]"
        verdict = "" if row["holds"] else "  OUTSIDE"
        name = ", ".join(filter(None, (row["number"], row["unit"])))
        print(
            f"{name:44s} {row['measured']:10.5g} {interval:>21s}"
            f" {_number(row['baseline_value']):>9s} {_number(row['paper']):>9s}{verdict}"
        )
    for source in dict.fromkeys(row["source"] for row in rows if row["source"]):
        print(f"paper: {source}")
    return 0 if all(row["holds"] for row in rows) else 1


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
