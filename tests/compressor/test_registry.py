"""How a name in a recipe becomes a function."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compressor import data, networks, plugins, quantize
from compressor.errors import PluginError, RecipeError
from compressor.recipe import preflight
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import recipe_of


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys\nsys.exit(0)\n", r"the end of the program, exit\(0\): move what runs at import"),
        ("def build(:\n", r"SyntaxError: invalid syntax \(ends\.py, line 1\): mend"),
        ("def buildd(): pass\n", "'build' in ends, got no such name: did you mean 'buildd'"),
        ("", r"no such name in .*ends\.py: define it there"),
    ],
)
def test_a_module_that_ends_the_program_or_lacks_the_name_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """A script that parses its arguments at import would otherwise give the command its own exit code, such as 0."""
    (tmp_path / "ends.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ends", raising=False)
    with pytest.raises(PluginError, match=said):
        plugins.resolve("compressor.networks", "ends:build", "build", known=())


def test_a_scheme_is_checked_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own by its function and its ``READS``; any by whether the target's runtime has it."""
    (tmp_path / "my_scheme.py").write_text("READS = frozenset()\ndef quantize(model, batches, settings): ...\n")
    monkeypatch.syspath_prepend(tmp_path)

    def refused(step: dict[str, object], runtime: str = "onnx") -> str:
        document = {"model": {"name": "m"}, "compress": [{"step": "quantize", **step}]}
        recipe = recipe_of(document | {"targets": {"host": {"runtime": runtime}}})
        with pytest.raises((PluginError, RecipeError)) as info:
            preflight.check(recipe, tmp_path / "out")
        return str(info.value)

    assert "did you mean 'quantize'" in refused({"scheme": "my_scheme:quantise"})
    assert "no calibration in" in refused({"scheme": "my_scheme:quantize", "calibration": "mse"})
    assert "onnx has it: set on =" in refused({"scheme": "my_scheme:quantize"}, "litert")
    assert "litert has it: set on =" in refused({"scheme": "static_int8_16"})


def test_a_data_set_must_return_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader that returns something else is refused by name."""
    (tmp_path / "my_wrong_loader.py").write_text("def load(data, root):\n    return 'no table'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="to return a Table, got str"):
        data.load(DataRecipe(dataset="my_wrong_loader:load"))
