"""Which source a piece of work is made of, derived from imports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import formats
from compressor.closure import code_digests, package, plugin
from compressor.run.pipeline import JUDGES

ROOT = Path(__file__).parents[2]
APART = "compressor.cache.Stage"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder on the path with a package whose modules import each other in every way."""
    files = {
        "ours_x/__init__.py": "",
        "ours_x/net.py": "from ours_x import at_once\ndef build():\n    from . import late\n",
        "ours_x/at_once.py": "if TYPE_CHECKING:\n    import typed_x\nelse:\n    import beside_x.deep\n",
        "ours_x/late.py": "",
        "beside_x/deep.py": "import json, torch\n",
        "typed_x.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_plug_in_of_ones_own_is_all_that_it_imports_and_its_package(own: Path) -> None:
    """At the top, late, relative, beside its package, in a folder without __init__; imports for types are left out."""
    found = code_digests([plugin("compressor.networks", "ours_x.net:build")])
    assert set(found) == {"ours_x", "ours_x.net", "ours_x.at_once", "ours_x.late", "beside_x.deep"}
    before = found
    for name in found:
        path = own.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        file.write_text(file.read_text() + "\n")
        after = code_digests(["ours_x.net"])
        assert [one for one in after if after[one] != before[one]] == [name]
        before = after


def test_code_of_ones_own_counts_wherever_on_the_path_it_lies(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper in another folder of ``PYTHONPATH`` has no version that would change; a folder of pip's has one."""
    other, vendored = own / "other", own / "vendored"
    (vendored / "packed_x-1.0.dist-info").mkdir(parents=True)
    other.mkdir()
    (own / "far_x.py").write_text("import elsewhere_x, packed_x\n")
    (other / "elsewhere_x.py").write_text("import sys, json, numpy\n")
    (vendored / "packed_x.py").write_text("")
    monkeypatch.syspath_prepend(str(other))
    monkeypatch.syspath_prepend(str(vendored))
    assert set(code_digests(["far_x"])) == {"far_x", "elsewhere_x"}


def test_a_plug_in_that_python_cannot_read_has_a_digest_all_the_same(own: Path) -> None:
    """Importing it reports the fault and its place; computing the digest does not."""
    (own / "broken_x.py").write_text("def build(:\n")
    assert set(code_digests(["broken_x"])) == {"broken_x"}


def test_a_network_is_its_own_file_and_what_it_imports() -> None:
    """Editing another network causes no training."""
    below = {name for name in code_digests(["compressor.networks.mobilenet_v3_small"]) if ".networks." in name}
    assert below == {"compressor.networks.mobilenet_v3_small", "compressor.networks.mobilenet_v2"}
    assert ".networks." not in " ".join(
        set(code_digests(["compressor.networks.resnet8"])) - {"compressor.networks.resnet8"}
    )


def test_the_code_that_judges_has_the_modules_that_the_lists_by_hand_left_out() -> None:
    """An edited floor of accuracy, recipe or wire module shows in the certificate."""
    found = set(code_digests(JUDGES))
    assert {
        "compressor.gates",
        "compressor.recipe.read",
        "compressor.run.stages",
        "wire.codec",
        "wire.reference",
    } <= found
    assert not [name for name in found if name.startswith("server")]


def test_a_stage_leaves_out_what_other_stages_of_its_module_import() -> None:
    """A changed quantizer causes no training."""
    found = code_digests(["compressor.run.stages", "compressor.train.supervised"], apart=APART)
    assert not [
        name for name in found if name.startswith(("compressor.quantize", "compressor.export", "compressor.qat"))
    ]
    assert "compressor.train.checkpoint" in code_digests(["compressor.run.stages"])
    assert "compressor.export.onnx" in code_digests([formats.code(formats.BASELINE)])


def test_an_installed_package_counts_where_a_plug_in_is_part_of_it() -> None:
    """Its other modules belong to the plug-in; its further imports count by their version only."""
    found = code_digests(["torchvision.models"])
    assert "torchvision.ops.boxes" in found
    assert not [name for name in found if not name.startswith("torchvision")]


def test_a_plug_in_may_lie_in_folders_without_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in another, neither imported yet."""
    inner = tmp_path / "outer_ns" / "inner_ns"
    inner.mkdir(parents=True)
    (inner / "net.py").write_text("WIDTH = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "outer_ns.inner_ns.net" in code_digests(["outer_ns.inner_ns.net"])


def test_a_module_that_is_not_there_has_no_digest() -> None:
    """Nor one without source."""
    assert code_digests(["no_such_module_x", "compressor.no_such", "sys"]).keys() <= {"compressor"}
    assert package("no_such_module_x") == ()


def test_knowing_the_code_imports_nothing() -> None:
    """A run that finds every step needs no torch."""
    code = "import sys; from compressor.closure import code_digests; code_digests(['compressor.run.pipeline'])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, check=True
    )
    assert done.stdout.strip() == b"False"


EDITED = """
import json, pathlib, sys
from compressor.closure import code_digests
entries = ["compressor.run.stages", "compressor.train.supervised", "compressor.networks.resnet8"]
before, same = code_digests(entries, apart="compressor.cache.Stage"), []
for name in before:
    path = pathlib.Path(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    source = path.read_bytes()
    path.write_bytes(source + b"# another\\n")
    if code_digests(entries, apart="compressor.cache.Stage")[name] == before[name]:
        same.append(name)
    path.write_bytes(source)
print(json.dumps([sorted(before), same]))
"""


@pytest.mark.slow
def test_editing_any_module_of_a_training_changes_its_code(tmp_path: Path) -> None:
    """Of ours, of the device's and of the contract's: nothing old is found under new code."""
    for name in ("wire", "edge_agent", "compressor"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", EDITED]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=True)
    names, same = json.loads(done.stdout)
    assert {"compressor.train.loop", "edge_agent.inference.preprocess", "wire.manifest"} <= set(names)
    assert same == []
