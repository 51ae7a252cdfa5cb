"""Step ``fine_tune``: more training from the current weights, usually after ``prune``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from compressor.steps._base import NETWORK, Applied, Bench, Network
from wire.settings import Bound

LEVEL = NETWORK


@dataclass(frozen=True, slots=True)
class Settings:
    """``[[compress]] step = "fine_tune"``. ``learning_rate``: peak of the schedule of ``[train]``."""

    step: str = "fine_tune"
    epochs: Annotated[int, Bound(1, 10_000)] = 5
    learning_rate: Annotated[float, Bound(1e-8, 10)] = 0.002


def apply(network: Network, bench: Bench, settings: Settings) -> Applied:
    """Return ``network``, trained further in place; weights that are zero (pruned by a mask) stay zero.

    Raises:
        TrainError: If training fails.
    """
    from compressor.train import supervised  # noqa: PLC0415 - torch is loaded only to train

    told: list[supervised.Epoch] = []

    def on_epoch(epoch: supervised.Epoch) -> None:
        told.append(epoch)
        bench.tell(f"fine_tune {epoch.number}/{epoch.of} loss {epoch.loss:.3f}")

    train = replace(bench.settings, epochs=settings.epochs, learning_rate=settings.learning_rate)
    with supervised.zeros_kept(network):
        options = supervised.Options(on_epoch=on_epoch, held=bench.search)
        supervised.fit_with(network, bench.train, train, options)
    return Applied(network=network, notes={"epochs": len(told), "loss_last": told[-1].loss})
