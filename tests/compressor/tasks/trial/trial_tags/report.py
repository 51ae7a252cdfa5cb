"""The part of the report for tags."""

import plotly.graph_objects as go

from compressor.report.contents import Bar, Picture
from compressor.report.pictures import plain


def bar(name, said, labels):  # noqa: ANN001, ANN201 - as a person writes it
    """Return how many tags are right."""
    return Bar(name, int(((said.logits > 0) == (labels > 0)).sum()), labels.size)


def answers(gate_set, names):  # noqa: ANN001, ANN201 - as above
    """Return the share of right tags, one bar each."""
    right = ((gate_set.candidate.logits > 0) == (gate_set.labels > 0)).mean(axis=0)
    return Picture("Right tags (compressed, gate split)", plain(go.Figure(go.Bar(x=names, y=right)), height_px=300))


def flips(gate_set):  # noqa: ANN001, ANN201 - as above
    """Return None: a row has no single class."""
    del gate_set


def tiles(figures):  # noqa: ANN001, ANN201 - as above
    """Return the share of right tags."""
    return [("right tags, compressed", f"{100 * figures['tag_accuracy']:.1f} %", "of all tags")]


def goodness(value) -> str:  # noqa: ANN001 - as above
    """Return a share in per cent."""
    return f"{100 * value:.1f} %"


def purpose(manifest, sense) -> str:  # noqa: ANN001 - as above
    """Return the model's purpose: which tags it predicts."""
    return f"gives inputs ({sense}) the tags {', '.join(manifest.labels)}"
