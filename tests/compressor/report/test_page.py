"""The page: opens offline, shows everything, escapes what it was given."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from compressor.certificate import Certificate, Line, Rule
from compressor.parity import Pair
from compressor.report import Bar, Shown, render

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def shown() -> Shown:
    """A small run."""
    line = Line("accuracy_drop", "pass", 0.001, 0.004, 0.01, 900, "1 lost")
    certificate = Certificate(
        verdict="pass", model="m", version=1, gates=(line,), rules=(Rule("accuracy_drop", max=0.01),),
        figures={"accuracy": 0.99, "size_bytes": 10.0, "float_size_bytes": 30.0}, counts={"accuracy": (1, 0, 900)},
    )  # fmt: skip
    bars = [Bar("float", 890, 900), Bar("int8", 889, 900)]
    pairs = (Pair("torch", "float", 1e-6, 1.0, 0.0), Pair("torch", "int8", 0.1, 0.99, 0.01))
    return Shown(certificate, ("0", "1"), bars, {"a": bars, EVIL: bars}, np.array([[5, 1], [0, 7]]), pairs,
                 lineage={"data": "ab" * 32}, made={"network": EVIL})  # fmt: skip


def test_shows_verdict_pictures_gates_parity_and_lineage(shown: Shown) -> None:
    """Everything the reader is promised is on the page, the verdict in words first."""
    page = render(shown)
    assert "m-1 passed all 1 gates and may be signed." in page
    for title in ("Accuracy on the gate split", "Size and latency", "Accuracy per slice", "What is taken for what",
                  "Gates", "Parity of the forms", "Lineage"):  # fmt: skip
        assert title in page
    assert "ab" * 32 in page


def test_asks_the_network_for_nothing(shown: Shown) -> None:
    """No element loads from elsewhere, and the page's own policy forbids it."""
    page = render(shown)
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?https?:""", outside)
    assert "default-src 'none'" in page


def test_names_from_data_are_text_not_code(shown: Shown) -> None:
    """A slice or class named like an element does not become one."""
    page = render(shown)
    assert EVIL not in page


def test_a_retraining_starts_with_before_and_after(shown: Shown) -> None:
    """The drifted samples come first."""
    page = render(replace(shown, drifted=[Bar("m-0", 3, 9), Bar("float", 8, 9), Bar("int8", 8, 9)]))
    assert page.index("Before and after on the held-out drifted samples") < page.index("Accuracy on the gate split")


def test_a_run_without_measurements_still_has_a_page(shown: Shown) -> None:
    """Latency is not measured for another processor; the page says so."""
    page = render(replace(shown, certificate=replace(shown.certificate, figures={})))
    assert "not measured" in page
