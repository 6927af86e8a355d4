"""A small network that learns a wave; slow on purpose where a test says so."""

from dataclasses import dataclass

from physml.options import Descent


@dataclass(frozen=True)
class Config:
    """Options."""

    seed: int = 0
    width: int = 8
    rows: int = 64
    pause: float = 0.0  # s that an evaluation takes
    tell: str = ""  # file in which load, compile, evaluate and measure say that they have begun
    wait: str = ""  # which of these then takes five minutes
    descent: Descent = Descent(
        steps=40, batch_size=8, learning_rate=0.02, evaluate_every=5, schedule="constant"
    )


PRESETS = {"smoke": Config(), "default": Config()}
