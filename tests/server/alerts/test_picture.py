"""The picture of evidence can be read by another program, and shows what its caption says."""

from __future__ import annotations

import io

from PIL import Image

from server.alerts.lettering import LETTER_HEIGHT, text_width
from server.alerts.picture import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw

HOUR_MS = 3_600_000
RED, BLUE = (179, 38, 30), (31, 95, 191)


def test_a_line_rises_to_its_share_of_the_threshold() -> None:
    """At four times the threshold the blue line ends on top, and the red one stands at a quarter."""
    drawn = draw({"cam-1": [(0, 0.0), (HOUR_MS, 4.0)]})
    assert drawn is not None
    picture = Image.open(io.BytesIO(drawn.png))
    picture.load()
    assert (picture.size, picture.mode) == ((WIDTH, HEIGHT), "RGB")
    rows = [row for row in range(TOP, HEIGHT) if picture.getpixel((RIGHT - 2, row)) == BLUE]
    red = [row for row in range(HEIGHT) if picture.getpixel((LEFT + 300, row)) == RED]
    assert max(rows) < TOP + (BOTTOM - TOP) / 8
    assert red == [BOTTOM - round((BOTTOM - TOP) / 4.2)]
    assert drawn.caption.startswith(
        "Evidence of cam-1 (blue) as a share of the threshold (red line), 1970-01-01 00:00 to"
    )


def _coloured(data: bytes, colour: tuple[int, int, int], box: tuple[int, int, int, int]) -> int:
    """Return how many pixels in a box (left, top, right, bottom) have a colour."""
    picture = Image.open(io.BytesIO(data)).crop(box)
    return sum(count for count, one in picture.getcolors(WIDTH * HEIGHT) or [] if one == colour)


def test_names_stand_in_the_colours_of_their_lines() -> None:
    """Above the drawing; a long name is cut and stays in its half, hostile signs are marks."""
    drawn = draw({"cam-1": [(0, 1.0), (1, 2.0)], "x" * 60: [(0, 0.1), (1, 0.2)], "<b>": [(0, 0.1), (1, 0.1)]})
    assert drawn is not None
    assert _coloured(drawn.png, BLUE, (0, 0, LEFT, TOP)) == 0
    assert _coloured(drawn.png, BLUE, (LEFT, 0, LEFT + text_width("cam-1"), LETTER_HEIGHT + 6)) > 40
    orange = (214, 122, 20)
    half = (LEFT + RIGHT) // 2
    assert _coloured(drawn.png, orange, (half, 0, WIDTH, TOP - 1)) > 300
    assert _coloured(drawn.png, orange, (LEFT, 0, half, TOP - 1)) == 0


def test_levels_and_times_have_labels() -> None:
    """The threshold in red at the left, the windows below; one window has one time."""
    both, one = draw({"cam-1": [(0, 1.0), (HOUR_MS, 4.0)]}), draw({"cam-1": [(0, 1.0)]})
    assert both is not None
    assert one is not None
    assert _coloured(both.png, RED, (0, 0, LEFT, HEIGHT)) > 100
    ink, right = (64, 70, 80), (WIDTH - 250, BOTTOM + 2, WIDTH, HEIGHT)
    assert (_coloured(both.png, ink, right) > 300, _coloured(one.png, ink, right)) == (True, 0)


def test_the_devices_with_most_evidence_are_drawn_and_the_rest_is_counted() -> None:
    """Six devices, four lines."""
    drawn = draw({f"cam-{number}": [(0, number / 10), (1, number / 10)] for number in range(6)})
    assert drawn is not None
    assert "cam-5 (blue), cam-4 (orange), cam-3 (green), cam-2 (purple) and 2 more" in drawn.caption


def test_one_window_is_drawn_and_none_is_no_picture() -> None:
    """A verdict of the first window has one point."""
    assert draw({"cam-1": [(5, 2.0)]}) is not None
    assert draw({}) is None
