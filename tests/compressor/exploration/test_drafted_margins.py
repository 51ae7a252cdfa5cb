"""Drafted margins: those that the gate itself shows of a file without loss, on as many rows as there are."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.data._event_windows import COLUMNS
from compressor.data._table import Table
from compressor.exploration.layouts import recognised
from compressor.gates.evidence import Evidence, Verdict
from compressor.gates.metrics import MetricDrop, PicturesDrop
from compressor.statistics.bootstrap import Draws, auc_drop, error_increase, label_f1_drop
from compressor.statistics.bounds import MetricEvidence
from compressor.tasks._drafting import FIRST_CONFIDENCE, INT8_NOISE, MARGINS, Facts, Key
from compressor.tasks.anomaly import draft as anomaly
from compressor.tasks.multi_label import draft as multi_label
from compressor.tasks.regression import draft as regression
from compressor.tasks.stream_events import draft as stream_events


def facts(labels: NDArray[np.generic], gate: int) -> Facts:
    """Return facts about rows with these ``labels``, each its own source, of which ``gate`` judge."""
    names = np.arange(len(labels)).astype(np.str_)
    table = Table(
        images=[np.zeros((8, 8, 3), np.uint8)] * len(labels), labels=labels, sources=names, hashes=names,
        slices=np.full(len(labels), "all"), class_names=("normal", "anomaly"),
    )  # fmt: skip
    return Facts(table=table, kind="image", width=8, height=8, train=9, gate=gate, smallest=9, calibration=9)


def key(keys: tuple[Key, ...], name: str) -> tuple[float, str]:
    """Return the margin of the gate ``name`` and its reason."""
    found = next(one for one in keys if one.name == name)
    return found.value["max"], found.why  # type: ignore[index]


def verdicts(gate: MetricDrop, drawn: list[MetricEvidence]) -> int:
    """Return how many of ten gate splits pass."""
    return sum(gate.judge(Evidence(figures={}, metrics={gate.metric: one})).verdict is Verdict.PASS for one in drawn)


@pytest.mark.parametrize(("gate", "odd"), [(100, 50), (100, 22), (300, 60)])
def test_a_drop_of_the_auc_is_one_that_the_gate_can_show(gate: int, odd: int) -> None:
    """Of ten splits with an equal file most pass, and none with the next smaller margin but one."""
    rng = np.random.default_rng(7)
    labels = np.append(np.ones(odd, np.int64), np.zeros(3 * (gate - odd), np.int64))
    margin, why = key(anomaly.parts(facts(labels, gate)).gates, "auc_drop")
    assert f"{gate - odd} normal and {odd} anomalous sources: the bound of an int8 file without loss is" in why
    kinds = (np.arange(gate) < odd).astype(np.int64)
    before = [rng.standard_normal(gate) + 1.8 * kinds for _ in range(10)]
    drawn = [auc_drop(kinds, one, one + INT8_NOISE * rng.standard_normal(gate), Draws(FIRST_CONFIDENCE, 500))
             for one in before]  # fmt: skip
    assert verdicts(MetricDrop("auc_drop", margin, FIRST_CONFIDENCE), drawn) >= 7
    below = MARGINS[MARGINS.index(margin) - 2]
    assert verdicts(MetricDrop("auc_drop", below, FIRST_CONFIDENCE), drawn) == 0


def test_a_hundred_sources_show_no_drop_of_five_points() -> None:
    """The margin that was always drafted."""
    labels = np.append(np.ones(50, np.int64), np.zeros(150, np.int64))
    assert key(anomaly.parts(facts(labels, 100)).gates, "auc_drop")[0] > 0.05
    many = np.append(np.ones(2000, np.int64), np.zeros(18_000, np.int64))
    assert key(anomaly.parts(facts(many, 8000)).gates, "auc_drop")[0] == 0.02


def test_labels_of_few_rows_get_a_wider_margin() -> None:
    """Of mAP a wider one than of F1, which needs no row of each label."""
    rng = np.random.default_rng(7)
    labels = rng.random((3000, 4)) < [0.5, 0.4, 0.3, 0.2]
    few, many = (multi_label.parts(facts(labels, gate)).gates for gate in (60, 1000))
    for gates, ranking, answers in ((few, 0.2, 0.1), (many, 0.02, 0.02)):
        assert (key(gates, "label_map_drop")[0], key(gates, "label_f1_drop")[0]) == (ranking, answers)
    assert "60 sources with labels as often as here: the bound of an int8 file without loss is" in few[0].why
    before = [rng.standard_normal((60, 4)) + 3.0 * labels[:60] for _ in range(10)]
    drawn = [label_f1_drop(labels[:60], one > 1.5, one + INT8_NOISE * rng.standard_normal(one.shape) > 1.5,
                           Draws(FIRST_CONFIDENCE, 500)) for one in before]  # fmt: skip
    assert verdicts(PicturesDrop("label_f1_drop", 0.1, FIRST_CONFIDENCE), drawn) >= 7


def test_an_increase_of_an_error_is_one_that_the_gate_can_show() -> None:
    """A twentieth of the deviation of many rows, more of few."""
    rng = np.random.default_rng(7)
    labels = rng.standard_normal((3000, 1)).astype(np.float32) / np.float32(2)
    few, many = (regression.parts(facts(labels, gate)).gates for gate in (100, 2000))
    assert key(many, "error_increase")[0] == pytest.approx(0.05 * float(labels.std()), rel=0.05)
    limit, why = key(few, "error_increase")
    assert limit == pytest.approx(0.08 * float(labels.std()), rel=0.05)
    assert why.startswith("0.08 of the labels' standard deviation; 100 sources")
    before = [0.3 * rng.laplace(size=100) * labels.std() for _ in range(10)]
    drawn = [error_increase(np.zeros(100), one, one + 0.05 * rng.standard_normal(100), Draws(FIRST_CONFIDENCE, 500))
             for one in before]  # fmt: skip
    assert verdicts(MetricDrop("error_increase", limit, FIRST_CONFIDENCE), drawn) >= 7


@pytest.mark.parametrize(("gate", "recall", "false"), [(4000, 0.03, 15.0), (400, 0.15, 120.0)])
def test_events_get_margins_by_their_number_and_hours(gate: int, recall: float, false: float) -> None:
    """A tenth of the windows are events of their own."""
    labels = np.zeros((10_000, len(COLUMNS)))
    labels[:, COLUMNS.index("at_s")] = np.arange(10_000) * 0.5
    labels[:, COLUMNS.index("event")] = np.where(np.arange(10_000) % 10, -1, np.arange(10_000) // 10)
    gates = stream_events.parts(facts(labels, gate)).gates
    assert key(gates, "event_recall_drop")[0] == recall
    assert key(gates, "false_accepts_increase")[0] == false
    assert "events judge" in gates[0].why


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_streamed_and_extensible_sounds_are_drafted(tmp_path: Path, size: int) -> None:
    """As the data sets read them: a length that the writer did not know, and the longer header."""
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(np.arange(8000, dtype=np.int16).tobytes())
    plain = out.getvalue()
    samples = plain[44:]
    guid = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x008\x9bq"
    chunk = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4) + guid
    long = b"WAVEfmt " + struct.pack("<I", len(chunk)) + chunk + b"data" + struct.pack("<I", len(samples)) + samples
    files = {"a/1.wav": plain[:40] + struct.pack("<I", size) + samples,
             "b/2.wav": b"RIFF" + struct.pack("<I", len(long)) + long}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    options = next(one.value for one in recognised(tmp_path).keys if one.name == "options")
    assert (options["sample_rate_hz"], options["clip_s"]) == (8000, 1.0)  # type: ignore[index]
