"""A command replaces its own files in --out, and refuses to replace other files."""

from pathlib import Path

import pytest

from compressor.errors import PackageError
from compressor.recipe.preflight import RESULTS, check_report_folder, check_run_folder
from compressor.search import results

DATA = ("data.json", "data.html")
KEYS = frozenset({"name", "rows", "findings"})


@pytest.mark.parametrize("name", RESULTS)
def test_a_run_refuses_to_overwrite_a_file_of_other_origin(name: str, tmp_path: Path) -> None:
    """A person's own weights or report are named and kept, and the error names the next step."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(PackageError, match=f"with a {name} of other origin"):
        check_run_folder(tmp_path, RESULTS)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("trace", ["cache", "gate.json"])
def test_a_run_replaces_what_an_earlier_run_wrote(trace: str, tmp_path: Path) -> None:
    """Known by its cache, or where that was deleted by its certificate; an empty folder needs neither."""
    check_run_folder(tmp_path / "new", RESULTS)
    (tmp_path / "float.pt").write_bytes(b"weights")
    if trace == "cache":
        (tmp_path / trace).mkdir()
    else:
        (tmp_path / trace).write_text('{"verdict": "pass", "gates": []}')
    check_run_folder(tmp_path, RESULTS)


@pytest.mark.parametrize("text", ["[1, 2]", "not json", '{"rows": 5}'])
def test_explore_refuses_to_overwrite_a_data_json_of_other_origin(text: str, tmp_path: Path) -> None:
    """The name is a common one; the command recognises its own file by its keys."""
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(PackageError, match=r"with a data\.json of other origin"):
        check_report_folder(tmp_path, DATA, KEYS)
    (tmp_path / "data.json").write_text('{"name": "a", "rows": 5, "findings": []}')
    check_report_folder(tmp_path, DATA, KEYS)


def test_every_result_of_a_search_is_guarded() -> None:
    """The list is stored with the checks that need no plotly; this test compares it with the names that are written."""
    assert {results.SEARCH_JSON, results.SEARCH_HTML, results.CHOSEN} <= set(RESULTS)
