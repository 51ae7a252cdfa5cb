"""A recipe that can't be searched is refused before anything is trained."""

from __future__ import annotations

import pytest

from compressor.errors import RecipeError
from compressor.recipe.read import parse_recipe
from compressor.search.trial import target_of


def test_a_regression_is_refused_with_the_way_out() -> None:
    """Forms are compared by accuracy, which numbers have none of."""
    recipe = parse_recipe(b'[model]\nname = "n"\n[data]\nlabel = "number"\n')
    with pytest.raises(RecipeError, match=r"recipe of classes to search, .*compressor run"):
        target_of(recipe, "")
