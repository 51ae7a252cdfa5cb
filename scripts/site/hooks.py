"""Hooks of mkdocs: pages generated from the code, pages from the top of the repository, formulas as MathML.

Formulas are written for GitHub, between dollar signs, and become MathML when the site is built: browsers show it
without a script, so the site needs no network.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.site import reference  # noqa: E402 - the path is set first

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

TOP = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, in place of the short ones of a checkout, and those of the repository's top folder."""
    for path, made in reference.pages().items():
        if (short := files.get_file_from_path(path)) is not None:
            files.remove(short)
        files.append(File.generated(config, path, content=made()))
    for name, path in TOP.items():
        files.append(File.generated(config, path, content=below_docs((ROOT / name).read_text())))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with formulas as MathML, and with links to the repository's top adapted to the site."""
    del page, config, files
    for name, path in TOP.items():
        markdown = markdown.replace(f"../{name})", f"{path})")
    return with_formulas(markdown)


def below_docs(text: str) -> str:
    """Return a page of the top folder with its links relative to ``docs``."""
    text = text.replace("](docs/", "](")
    for name, path in TOP.items():
        text = text.replace(f"]({name})", f"]({path})")
    return text


def with_formulas(markdown: str) -> str:
    """Return ``markdown`` with everything between dollar signs, outside code, as MathML."""
    parts = _CODE.split(markdown)
    for place in range(0, len(parts), 2):
        shown = re.sub(
            r"\$\$(.+?)\$\$", lambda found: convert(found[1], display="block"), parts[place], flags=re.DOTALL
        )
        parts[place] = re.sub(r"\$([^$\n]+?)\$", lambda found: convert(found[1]), shown)
    return "".join(parts)
