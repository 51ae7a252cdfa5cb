"""How the rate moves, step by step."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.train.loop import schedule


def _rates(name: str, warm_up_epochs: int = 0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0, momentum=0.9)
    settings = TrainRecipe(schedule=name, epochs=4, learning_rate=1.0, warm_up_epochs=warm_up_epochs)
    moving, rates = schedule(optimizer, settings, 2), []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        moving.step() if len(rates) < 8 else None
    return rates


def test_each_schedule_is_what_its_name_says() -> None:
    """Constant stays, step drops to a tenth at 1/2 and 3/4, cosine falls to near 0, one cycle rises and falls."""
    assert _rates("constant") == [1.0] * 8
    assert _rates("step") == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = _rates("cosine")
    assert cosine[0] == 1
    assert cosine[4] == pytest.approx(0.5)
    assert cosine == sorted(cosine, reverse=True)
    cycle = _rates("one_cycle")
    assert max(cycle) == pytest.approx(1) == cycle[1]


@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
def test_warm_up_rises_to_the_peak(name: str) -> None:
    """Two epochs of two steps rise evenly; the peak follows directly."""
    assert _rates(name, 2)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_warm_up_moves_the_peak_of_one_cycle() -> None:
    """With warm-up the peak is where warm-up ends, not at a quarter."""
    rates = _rates("one_cycle", 2)
    assert rates.index(max(rates)) == 3


def test_an_unknown_schedule_is_refused() -> None:
    """A name that no schedule has is an error, not a constant rate."""
    with pytest.raises(TrainError, match="cosine"):
        _rates("sawtooth")


@pytest.mark.parametrize("epochs", range(1, 9))
def test_one_cycle_fits_the_shortest_training(epochs: int) -> None:
    """From one step in all, every length has finite rates; four steps must not divide by zero."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0, momentum=0.9)
    moving = schedule(optimizer, TrainRecipe(epochs=epochs, learning_rate=1.0), 1)
    for _ in range(epochs):
        optimizer.step()
        moving.step()
        assert 0 <= optimizer.param_groups[0]["lr"] <= 1
