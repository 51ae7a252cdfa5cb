"""The verdict in words."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go
import pytest

from compressor.gates.certificate import Certificate, Line
from compressor.report.contents import Bar, Picture, Shown
from compressor.report.phrases import count, figure, headline, sentences, short, times, used


def _certificate(verdict: str, *lines: Line) -> Certificate:
    return Certificate(
        verdict=verdict,
        model="m",
        version=2,
        baseline="m-1",
        gates=lines or (Line(name="size_bytes", verdict="pass"),),
        counts={"accuracy": (3, 4, 912)},
        figures={"drop_upper": 0.0043},
    )


def test_the_headline_says_what_follows_from_the_verdict() -> None:
    """Signed or not, why, and what would decide it."""
    assert headline(_certificate("pass")) == "m-2 passed all 1 gates and may be signed."
    assert "failed size_bytes. It is not signed" in headline(
        _certificate("fail", Line(name="size_bytes", verdict="fail"))
    )
    doubtful = headline(_certificate("inconclusive", Line(name="accuracy_drop", verdict="inconclusive", needs=1200)))
    assert "about 1,200 more labelled samples would decide it" in doubtful


def test_a_retraining_leads_with_before_and_after() -> None:
    """The changes for the drifted sites come first."""
    drifted = [Bar("m-1", 40, 94), Bar("float", 93, 94), Bar("int8", 93, 94)]
    shown = Shown(
        certificate=_certificate("pass"),
        class_names=("a",),
        accuracies=[],
        slices={},
        answers=Picture("", go.Figure()),
        parity=[],
        drifted=drifted,
    )
    first, second = sentences(shown)
    assert "right on 98.9 %, where m-1 was right on 42.6 %" in first
    assert "with 95 % confidence it loses at most 0.43 points (of 912 images 3 got worse and 4 better)" in second


def test_every_target_is_said_by_its_name() -> None:
    """The figures of the first target must not be taken for those of all."""
    first, second = replace(_certificate("pass"), target="pc"), replace(_certificate("pass"), target="pi")
    second = replace(second, figures={"drop_upper": 0.0071})
    shown = Shown(
        certificate=_certificate("pass"),
        class_names=("a",),
        accuracies=[],
        slices={},
        answers=Picture("", go.Figure()),
        parity=[],
        targets=(first, second),
    )
    said = sentences(shown)
    assert [line[:7] for line in said] == ["On pc: ", "On pi: "]
    assert "at most 0.43 points" in said[0]
    assert "at most 0.71 points" in said[1]


def test_every_target_has_one_paragraph() -> None:
    """Drop and gain of one target are in one paragraph."""
    figures = {"drop_upper": 0.0071, "float_size_bytes": 8.0, "size_bytes": 4.0}
    targets = tuple(replace(_certificate("pass"), target=name, figures=figures) for name in ("pc", "pi"))
    shown = Shown(
        certificate=_certificate("pass"),
        class_names=("a",),
        accuracies=[],
        slices={},
        answers=Picture("", go.Figure()),
        parity=[],
        targets=targets,
    )
    assert len(sentences(shown)) == 2
    assert "worse and 4 better). The compressed model is 2.00" in sentences(shown)[1]


def test_a_file_compared_with_itself_is_said_to_be_so() -> None:
    """Its gates on drops can't fail, so their passes prove nothing."""
    certificate = replace(_certificate("pass"), target="pi", figures={"drop_upper": 0.003, "size_bytes": 9.0})
    lineage = {"float_model": "abc", "artifact_pi": "abc"}
    shown = Shown(
        certificate=certificate,
        class_names=("a",),
        accuracies=[],
        slices={},
        answers=Picture("", go.Figure()),
        parity=[],
        lineage=lineage,
        targets=(certificate,),
    )
    assert "Nothing was compressed for pi: it is the very file it is compared with" in sentences(shown)[-1]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("size_bytes", 66841.0, "66.8 kB"),
        ("peak_memory_bytes", 54e6, "54.0 MB"),
        ("latency_p95_ms", 0.25, "0.250 ms"),
        ("negative_flip_ratio", 0.0011, "0.11 %"),
        ("n_gate", 912.0, "912"),
        ("drop_upper", -0.0005, "-0.05 %"),
    ],
)
def test_figures_have_units(name: str, value: float, said: str) -> None:
    """The unit follows from the name."""
    assert figure(name, value) == said


def test_how_much_of_a_limit_is_used() -> None:
    """The bound counts, not the estimate; for a lower limit the other way round."""
    assert used(Line(name="a", verdict="pass", value=0.001, bound=0.005, limit=0.01), at_least=False) == pytest.approx(
        0.5
    )
    assert used(Line(name="a", verdict="pass", value=0.95, bound=0.95, limit=0.90), at_least=True) == pytest.approx(
        0.90 / 0.95
    )
    assert used(Line(name="a", verdict="fail", value=None, bound=None, limit=0.90), at_least=True) is None


def test_faster_and_slower_are_said_as_they_are() -> None:
    """A model that got slower is not called faster by less than one."""
    words = ("faster", "slower")
    assert [times(2.0, 1.0, words)[-6:], times(1.0, 2.0, words)[-6:]] == ["faster", "slower"]
    assert times(None, 1.0, words) == "not measured"


def test_long_names_keep_their_two_ends() -> None:
    """Names that begin alike stay apart."""
    assert short("watermeter/Techem/V_DR_and_more_of_it_1") != short("watermeter/Techem/V_DR_and_more_of_it_2")


def test_counts_have_three_digits() -> None:
    """MACs are read, not compared digit by digit."""
    assert [count(12_345_678), count(77_911), count(7)] == ["12.3 M", "77.9 k", "7"]
