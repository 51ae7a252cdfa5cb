"""A program whose packages are missing names the command that installs them."""

import subprocess
import sys

import pytest

from wire.extras import missing_extra


@pytest.mark.parametrize(
    ("name", "extra", "found"),
    [
        ("httpx", "server", True),
        ("sqlalchemy.orm", "server", True),
        ("sklearn", "compressor", True),
        ("torch_pruning", "compressor", True),
        ("onnxruntime", "compressor", True),  # by tinyfleet[onnx]
        ("torch", "server", False),
        ("server.nothing", "server", False),
        ("my_own_plugin", "compressor", False),
    ],
)
def test_only_a_package_that_the_extra_names_is_an_extra_that_is_missing(name: str, extra: str, found: bool) -> None:  # noqa: FBT001
    """An import error of our code, or of a plug-in, is not reported as a missing package."""
    assert (f"pip install 'tinyfleet[{extra}]'" in missing_extra(ModuleNotFoundError(name=name), "p", extra)) is found


@pytest.mark.parametrize(
    ("module", "missing", "arguments", "extra", "code"),
    [
        ("server.__main__", "httpx", ["--help"], "server", 1),
        ("compressor.cli", "tqdm", ["publish", "--help"], "compressor", 4),
    ],
)
def test_a_program_without_its_packages_says_so_in_one_line(
    module: str, missing: str, arguments: list[str], extra: str, code: int
) -> None:
    """No traceback, no fault of ours."""
    script = f"import sys, importlib; sys.modules[{missing!r}] = None; importlib.import_module({module!r}).main()"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert f"needs tinyfleet[{extra}], whose {missing} is not there" in done.stderr
