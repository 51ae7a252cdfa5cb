"""The documentation: citations and links lead to files, generated pages are complete, and the site builds."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from edge_agent import front_ends, sinks, sources
from edge_agent.config import AgentConfig
from edge_agent.sinks._filters import SinkSettings
from scripts.site import reference
from server.config import ServerConfig
from wire.settings import names_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
CARDS = [*sorted(ROOT.glob("models/*/card.md")), *sorted(ROOT.glob("models/*/recipe.toml"))]
FOLDERS = ("wire", "compressor", "edge_agent", "server", "scripts", "tests")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CITED = re.compile(r"(?<![\w./-])docs/[\w./-]*\w")
NAMED = re.compile(r"(?<![\w./*<>-])[A-Z]{4,}\.md\b")
GENERATED = {*reference.pages(), "contributing.md", "security.md", "changelog.md"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PAGES, *TOP, *CARDS, ROOT / "mkdocs.yml"], ids=_name)
def test_every_page_that_a_page_cites_exists(path: Path) -> None:
    """A path below docs/ names a file of the repository, or a page that is made from the code."""
    cited = set(CITED.findall(path.read_text(encoding="utf-8")))
    assert {one for one in cited if not (ROOT / one).exists() and one.removeprefix("docs/") not in GENERATED} == set()


def test_every_page_that_code_cites_exists() -> None:
    """A reader of the code finds its source: a page of docs/, or another page at the top of the repository."""
    missing = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        cited = {*CITED.findall(text), *(name for name in NAMED.findall(text) if path != Path(__file__))}
        missing += [(_name(path), one) for one in cited if not (ROOT / one).exists()]
    assert missing == []


def test_no_page_points_outside_the_repository() -> None:
    """A folder beside the checkout does not exist elsewhere."""
    texts = {_name(path): path.read_text(encoding="utf-8") for path in [*PAGES, *TOP, *CARDS, *SOURCES]}
    assert [name for name, text in texts.items() if re.search(r"\.\./shared\b", text)] == []


@pytest.mark.parametrize("path", [*PAGES, *TOP], ids=_name)
def test_every_relative_link_leads_to_a_page(path: Path) -> None:
    """The links lead to existing files, or to generated pages."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
    made = {str((ROOT / "docs" / name).resolve()) for name in GENERATED}
    found = {link: (path.parent / link).resolve() for link in links if link}
    assert {link for link, at in found.items() if not at.exists() and str(at) not in made} == set()


def test_the_list_of_decision_records_has_each_with_its_title() -> None:
    """A new record, or a new title, is in the list."""
    rows = []
    for path in sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")):
        number, _, title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").partition(". ")
        rows.append(f"| {number} | [{title}]({path.name}) |")
    listed = (ROOT / "docs" / "adr" / "index.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in listed if line.startswith("| ") and "](" in line] == rows


@pytest.mark.parametrize("path", sorted(reference.pages()))
def test_a_generated_page_is_also_in_a_checkout(path: str) -> None:
    """A short one, which says how to make the whole one and where the same stands: no link leads nowhere."""
    text = (ROOT / "docs" / path).read_text(encoding="utf-8")
    assert "`./scripts/docs` makes this page" in text
    assert text.splitlines()[0] == reference.pages()[path]().splitlines()[0]


def _keys(config: type) -> Iterator[str]:
    hints = get_type_hints(config)
    for field in dataclasses.fields(config):
        if hints[field.name] is sources.SourceConfig:
            yield from ("## [source]\n", "| `kind` |")
            for name in sources.names():
                yield f'## [source] of kind = "{name}"'
                yield from _keys(sources.settings_of(name))
        elif field.name == "sinks":
            yield from ("## [sinks.NAME]\n", "| `kind` |", *_keys(SinkSettings))
            for name in sinks.names():
                yield f'## [sinks.NAME] of kind = "{name}"'
                yield from _keys(sinks.settings_of(name))
        elif dataclasses.is_dataclass(hints[field.name]):
            yield f"## [{field.name}]"
            yield from _keys(hints[field.name])
        else:
            yield f"| `{field.name}` |"


def test_the_page_of_front_ends_has_every_option_of_each() -> None:
    """A section for each, a row for each option with range and default, by value for one."""
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", reference.front_ends(), flags=re.DOTALL | re.MULTILINE))
    assert tuple(sections) == front_ends.names()
    for name, text in sections.items():
        assert set(re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)) == set(front_ends.complete(name, {}))
    assert "| `mels` | whole number | between 4 and 256 | `32` |" in sections["log_mel"]


@pytest.mark.parametrize(
    ("page", "config"), [(reference.agent_toml, AgentConfig), (reference.server_toml, ServerConfig)]
)
def test_the_pages_of_settings_have_every_key(page: object, config: type) -> None:
    """Also those of later."""
    text = page()  # type: ignore[operator]
    assert [key for key in _keys(config) if key not in text] == []


def test_the_page_of_server_toml_has_each_key_in_its_table_with_type_and_default() -> None:
    """A section for each table and list of tables, a row for each key and no other, as the code has them."""
    sections = dict(
        re.findall(r"^## \[+([\w.]+)\]+\n(.*?)(?=^## |\Z)", reference.server_toml(), flags=re.DOTALL | re.MULTILINE)
    )
    tables = {
        field.name: type(found)
        for field in dataclasses.fields(ServerConfig)
        if dataclasses.is_dataclass(found := getattr(ServerConfig(), field.name))
    }
    assert {name.partition(".")[0] for name in sections} == set(tables)
    for name, table in tables.items():
        rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", sections[name], flags=re.MULTILINE))
        assert set(rows) == names_of(table), name
        for key, row in rows.items():
            default = getattr(table(), key)
            if isinstance(default, str | int | float):
                assert f"`{json.dumps(default)}`" in row, (name, key, row)


def test_the_reason_of_a_key_is_on_the_page_wherever_its_comment_stands() -> None:
    """Also after a value that has a line of its own; no key gets the comment of the next one."""
    text = reference.agent_toml()
    for name, words in (("max_memory_bytes", "private memory of the child"), ("changes_only", "an answer passes if")):
        assert re.search(rf"^\| `{name}` \|.*\| {words}.* \|$", text, flags=re.MULTILINE), name
    assert re.search(r"^\| `enabled` \|.*\|  \|$", text, flags=re.MULTILINE)


def test_the_page_of_answers_has_every_sink_and_key() -> None:
    """A row for each kind with its own keys, and one for each key of every sink."""
    text = (ROOT / "docs" / "reference" / "answers.md").read_text(encoding="utf-8")
    for name in sinks.names():
        row = re.search(rf"^\| `{name}` \|.*$", text, flags=re.MULTILINE)
        assert row is not None, name
        assert [key for key in sorted(names_of(sinks.settings_of(name))) if f"`{key}`" not in row[0]] == []
    assert [key for key in sorted(names_of(SinkSettings)) if f"\n| `{key}` |" not in text] == []


def test_the_page_of_the_rest_interface_says_who_may_call() -> None:
    """Only public operations are open without a token."""
    text = reference.rest()
    assert "| GET | `/api/overall` | view |" in text
    assert "| GET | `/blobs/{sha256}` | device, view or build |" in text
    public = re.findall(r"\| (\w+) \| `([^` ]+)[^`]*` \| anybody", text)
    assert public == [
        ("GET", "/api/health"), ("GET", "/api/ready"), ("GET", "/api/enrol"), ("POST", "/api/enrol"),
        ("GET", "/tuf/{name}"),
    ]  # fmt: skip


def test_the_pages_of_commands_and_names_are_complete() -> None:
    """Every command of the three programs and every public name."""
    commands, names = reference.commands(), reference.python_names()
    assert all(f"`{program}`" in commands for program in reference.PROGRAMS)
    assert "### `fleet-server devices`" in commands or "## `fleet-server devices`" in commands
    public = [name for module in reference.APIS for name in importlib.import_module(module).__all__]
    assert [name for name in public if f"\n### {name}\n" not in names] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Strict: a broken link or anchor, or a page that is in no menu, is an error. No page fetches anything."""
    for package in ("mkdocs", "material", "latex2mathml"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = "".join(page.read_text() for page in (tmp_path / "site").rglob("*.html"))
    assert "<math" in pages
    assert re.findall(r'(?:<script[^>]+src|<link[^>]+stylesheet[^>]+href)="(https?:[^"]+)"', pages) == []
