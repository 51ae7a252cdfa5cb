"""Step ``fine_tune``: some more training from the weights as they are, usually after ``prune``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from compressor.recipe.toml_fields import Checked
from compressor.steps._base import NETWORK, Applied, Bench, Network

LEVEL = NETWORK


@dataclass(frozen=True, slots=True)
class Settings:
    """``[[compress]] step = "fine_tune"``. ``learning_rate``: the peak of the schedule of ``[train]``."""

    step: str = "fine_tune"
    epochs: int = 5
    learning_rate: float = 0.002


def checks(settings: Settings) -> Sequence[Checked]:
    """Return what the step asks of its settings."""
    return (
        Checked("[[compress]] epochs", settings.epochs, 1, 10_000),
        Checked("[[compress]] learning_rate", settings.learning_rate, 1e-8, 10),
    )


def apply(network: Network, bench: Bench, settings: Settings) -> Applied:
    """Return ``network``, trained further in place; weights that are zero (pruned by a mask) stay so.

    Raises:
        TrainError: If training fails.
    """
    from compressor.train import sparsity, supervised  # noqa: PLC0415 - torch is loaded only to train

    told: list[supervised.Epoch] = []

    def on_epoch(epoch: supervised.Epoch) -> None:
        told.append(epoch)
        bench.tell(f"fine_tune {epoch.number}/{epoch.of} loss {epoch.loss:.3f}")

    train = replace(bench.settings, epochs=settings.epochs, learning_rate=settings.learning_rate)
    rows = bench.train
    with sparsity.zeros_kept(network):
        supervised.fit(network, rows.inputs, rows.labels, train, on_epoch=on_epoch, held=bench.search)
    return Applied(network, notes={"epochs": len(told), "loss_last": told[-1].loss})
