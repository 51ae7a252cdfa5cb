"""A bench of small digits."""

from __future__ import annotations

import numpy as np
import pytest

from compressor import data
from compressor.data._front_end import preprocessing_of
from compressor.recipe.model import DataRecipe, TrainRecipe
from compressor.steps._base import Bench, Rows
from edge_agent.inference import preprocess


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Return 48 digits of 32 x 32 pixels to train on and 32 to judge with, loaded once."""
    recipe = DataRecipe(dataset="digits", colour="grey")
    table = data.load(recipe).take(np.random.default_rng(0).permutation(1000)[:80])
    inputs = preprocess.to_batch(list(table.images), preprocessing_of(recipe))
    train, search = Rows(inputs[:48], table.labels[:48]), Rows(inputs[48:], table.labels[48:])
    return Bench(train=train, calibration=train, search=search, settings=TrainRecipe(batch=16, augment=0.0))
