"""How a name in a recipe becomes a function."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor import data, networks, plugins, quantize
from compressor.errors import PluginError
from compressor.recipe.model import DataRecipe


def test_the_folder_is_the_registry() -> None:
    """A file of a folder is found there, without another list."""
    assert set(data.datasets()) >= {"digits", "idx", "labelled_images"}
    assert set(networks.networks()) >= {"ds_cnn", "mobilenet_v2", "resnet8"}
    assert "static_int8" in quantize.schemes()


@pytest.mark.parametrize(("folder", "function"), [("data", "load"), ("networks", "build"), ("quantize", "quantize")])
def test_every_plugin_has_the_agreed_function(folder: str, function: str) -> None:
    """A plug-in is tested by existing: it imports and has the function of its folder."""
    known = {"data": data.datasets, "networks": networks.networks, "quantize": quantize.schemes}[folder]()
    for name in known:
        assert callable(plugins.resolve(f"compressor.{folder}", name, function, known=known))


def test_an_unknown_plugin_names_the_nearest() -> None:
    """A misspelt data set is refused with the one that was probably meant."""
    with pytest.raises(PluginError, match="did you mean 'digits'"):
        data.load(DataRecipe(dataset="digit"))


def test_a_dotted_path_brings_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``package.module:function`` is imported from wherever Python finds it."""
    (tmp_path / "my_loader.py").write_text("from compressor.data.digits import load as mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins.resolve("compressor.data", "my_loader:mine", "load", known=()) is not None


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for a plug-in names the package that is not installed."""
    (tmp_path / "my_other_loader.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="not_installed_anywhere"):
        plugins.resolve("compressor.data", "my_other_loader:load", "load", known=())


def test_a_data_set_must_return_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader that returns something else is refused by name."""
    (tmp_path / "my_wrong_loader.py").write_text("def load(data, root):\n    return 'no table'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="to return a Table, got str"):
        data.load(DataRecipe(dataset="my_wrong_loader:load"))
