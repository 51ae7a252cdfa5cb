"""The page: opens offline, shows everything, escapes its inputs."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from compressor.gates.certificate import Certificate, Line, combine
from compressor.gates.evidence import GateRecipe
from compressor.measurement.parity import Pair
from compressor.measurement.saliency import Explained, Flip
from compressor.report import Bar, Changed, Changes, Layers, Picture, Shown, Step, render
from compressor.tasks.classification.report import confusion_picture

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def shown() -> Shown:
    """A small run."""
    line = Line(name="accuracy_drop", verdict="pass", value=0.001, bound=0.004, limit=0.01, n=900, text="1 lost")
    certificate = Certificate(
        verdict="pass", model="m", version=1, gates=(line,), rules=(GateRecipe(name="accuracy_drop", max=0.01),),
        figures={"accuracy": 0.99, "size_bytes": 10.0, "float_size_bytes": 30.0}, counts={"accuracy": (1, 0, 900)},
    )  # fmt: skip
    bars = [Bar("float", 890, 900), Bar("int8", 889, 900)]
    pairs = (
        Pair(first="torch", second="float", max_abs=1e-6, cosine=1.0, flip_ratio=0.0),
        Pair(first="torch", second="int8", max_abs=0.1, cosine=0.99, flip_ratio=0.01),
    )
    answers = Picture("What is taken for what", confusion_picture(np.array([[5, 1], [0, 7]]), ("0", "1")))
    return Shown(
        certificate=certificate,
        class_names=("0", "1"),
        accuracies=bars,
        slices={"a": bars, EVIL: bars},
        answers=answers,
        parity=pairs,
        lineage={"data": "ab" * 32},
        made={"network": EVIL},
    )


def _changes(flip: Flip) -> Changes:
    image = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    saliency = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    return Changes(
        target="pi", n=900, flips=1, lost=1, won=0, first=(Changed(Explained(flip, saliency, saliency), image, image),)
    )


def test_shows_verdict_pictures_gates_parity_and_lineage(shown: Shown) -> None:
    """Everything that is documented is on the page, the verdict in words first."""
    page = render(shown)
    assert "m-1 passed all 1 gates and may be signed." in page
    for title in ("Accuracy on the gate split", "Size and latency", "Accuracy per slice", "What is taken for what",
                  "Gates", "Parity of the forms", "Lineage"):  # fmt: skip
        assert title in page
    assert "ab" * 32 in page


def test_asks_the_network_for_nothing(shown: Shown) -> None:
    """No element loads from elsewhere, and the page's own policy forbids it."""
    page = render(
        replace(
            shown,
            changes=_changes(Flip(row=3, label=0, before=0, after=1, before_margin=0.9, after_margin=0.1, slice="a")),
        )
    )
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href|url\()\s*=?\s*["']?https?:""", outside)
    assert "default-src 'none'" in page


def test_names_from_data_are_text_not_code(shown: Shown) -> None:
    """A slice or class named like an element does not become one."""
    steps = [Step(name=EVIL, remark=EVIL, notes={EVIL: EVIL})]
    named = replace(shown, class_names=(EVIL, "1"), layers=Layers(EVIL, EVIL, suspicious=True), steps=steps)
    assert EVIL not in render(
        replace(
            named,
            changes=_changes(Flip(row=3, label=0, before=0, after=1, before_margin=0.9, after_margin=0.1, slice=EVIL)),
        )
    )


def test_a_retraining_starts_with_before_and_after(shown: Shown) -> None:
    """The drifted samples come first."""
    page = render(replace(shown, drifted=[Bar("m-0", 3, 9), Bar("float", 8, 9), Bar("int8", 8, 9)]))
    assert page.index("Before and after on the held-out drifted samples") < page.index("Accuracy on the gate split")


def test_a_run_without_measurements_still_has_a_page(shown: Shown) -> None:
    """Latency is not measured for another processor; the page states it."""
    page = render(replace(shown, certificate=replace(shown.certificate, figures={})))
    assert "not measured" in page


def test_a_flip_is_shown_with_input_and_saliency_before_and_after(shown: Shown) -> None:
    """Three pictures inside the page, the answers with their margins, and which way it went."""
    page = render(
        replace(
            shown,
            changes=_changes(
                Flip(row=3, label=0, before=0, after=1, before_margin=0.9, after_margin=0.1, slice="lens-a")
            ),
        )
    )
    section = page[page.index("What changed") :]
    assert "1 of the 900 images of the gate split flipped on pi: 1 got worse" in section
    assert section.count('src="data:image/png;base64,') == 3
    for said in ("got worse", "lens-a", "margin 0.90", "margin 0.10", "before: 0", "after: 1"):
        assert said in section


def test_that_nothing_flipped_is_said(shown: Shown) -> None:
    """An empty section would look like a missing measurement."""
    page = render(replace(shown, changes=Changes(target="pi", n=900, flips=0, lost=0, won=0)))
    assert "Nothing flipped on pi: float and compressed model say the same of all 900 images" in page


def test_layers_that_part_are_marked_where_the_forms_disagree(shown: Shown) -> None:
    """One line in the card of the parity, to be read first only when something is wrong."""
    layers = Layers("pi", "'conv' has 3.0 dB", suspicious=True)
    assert '<p class="warned"><b>First diverging layer</b> (pi): &#x27;conv&#x27; has 3.0 dB' in render(
        replace(shown, layers=layers)
    )
    assert '<p class="warned">' not in render(replace(shown, layers=replace(layers, suspicious=False)))


def test_each_step_has_its_costs_and_what_was_not_measured_is_left_open(shown: Shown) -> None:
    """Before and after with their units; a step that measured nothing claims nothing."""
    pruned = Step(name="prune", score=("98.00 %", "97.00 %"), macs=(12.5e6, 6.2e6), notes={"rounds": "2"})
    page = render(replace(shown, steps=[pruned, Step(name="quantize", size_bytes=(4e5, 1e5))]))
    section = page[page.index("What each step cost") :]
    for said in ("98.00 % → 97.00 %", "12.5 M → 6.2 M", "400.0 kB → 100.0 kB", "prune: rounds"):
        assert said in section


def test_many_forms_get_the_full_width(shown: Shown) -> None:
    """A parity table of six forms does not fit half a page."""
    many = [Pair(first="torch", second=f"t{i}", max_abs=0.0, cosine=1.0, flip_ratio=0.0) for i in range(5)]
    page = render(replace(shown, parity=many))
    assert page.index("Parity of the forms") < page.index("How it was made")


def test_a_lower_limit_of_one_target_is_shown_as_one(shown: Shown) -> None:
    """Each target's lines are read by its own rules."""
    first = replace(shown.certificate, target="a")
    line = Line(name="accuracy", verdict="fail", value=0.98, bound=0.98, limit=0.999)
    second = replace(first, target="b", gates=(line,), rules=(GateRecipe(name="accuracy", min=0.999),))
    assert "≥ 99.90 %" in render(replace(shown, certificate=combine([first, second])))


def test_many_classes_take_the_full_width_and_keep_their_names_apart(shown: Shown) -> None:
    """Two long names that shorten alike are two rows; numbers in cells of a few pixels would be a smear."""
    names = tuple(f"a-very-long-name-{i}-of-a-class-with-one-end" for i in range(30))
    figure = confusion_picture(np.eye(30, dtype=np.int64), names)
    assert (len(figure.data[0].y), figure.data[0].texttemplate) == (30, "")
    page = render(replace(shown, class_names=names, answers=Picture("What is taken for what", figure, wide=True)))
    grid, rest = page.split('<section class="card"><h2>What is taken for what', 1)
    assert grid.endswith("</div>")
    assert "<h2>How it was made" in grid
    assert "<h2>Gates" in rest
