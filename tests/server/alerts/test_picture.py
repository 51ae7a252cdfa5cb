"""The picture of evidence can be read by another program, and shows what its caption says."""

from __future__ import annotations

import io

from PIL import Image

from server.alerts.picture import HEIGHT, MARGIN, WIDTH, draw

HOUR_MS = 3_600_000
RED, BLUE = (179, 38, 30), (31, 95, 191)


def test_a_line_rises_to_its_share_of_the_threshold() -> None:
    """At four times the threshold the blue line ends on top, and the red one stands at a quarter."""
    drawn = draw({"cam-1": [(0, 0.0), (HOUR_MS, 4.0)]})
    assert drawn is not None
    picture = Image.open(io.BytesIO(drawn.png))
    picture.load()
    assert (picture.size, picture.mode) == ((WIDTH, HEIGHT), "RGB")
    rows = [row for row in range(HEIGHT) if picture.getpixel((WIDTH - MARGIN - 2, row)) == BLUE]
    red = [row for row in range(HEIGHT) if picture.getpixel((MARGIN + 300, row)) == RED]
    assert max(rows) < HEIGHT / 8
    assert red == [HEIGHT - 1 - MARGIN - round((HEIGHT - 2 * MARGIN - 1) / 4.2)]
    assert drawn.caption.startswith(
        "Evidence of cam-1 (blue) as a share of the threshold (red line), 1970-01-01 00:00 to"
    )


def test_the_devices_with_most_evidence_are_drawn_and_the_rest_is_counted() -> None:
    """Six devices, four lines."""
    drawn = draw({f"cam-{number}": [(0, number / 10), (1, number / 10)] for number in range(6)})
    assert drawn is not None
    assert "cam-5 (blue), cam-4 (orange), cam-3 (green), cam-2 (purple) and 2 more" in drawn.caption


def test_one_window_is_drawn_and_none_is_no_picture() -> None:
    """A verdict of the first window has one point."""
    assert draw({"cam-1": [(5, 2.0)]}) is not None
    assert draw({}) is None
