"""Texts in pictures."""

import string

import numpy as np

from server.alerts.lettering import ADVANCE, LETTER_HEIGHT, SCALE, letters, text_width, write

BLACK = (0, 0, 0)


def blank(width: int = 200, height: int = 40) -> np.ndarray:
    """Return a white picture."""
    return np.full((height, width, 3), 255, np.uint8)


def written(text: str, x: int = 4, y: int = 4) -> np.ndarray:
    """Return which pixels of a picture are black."""
    pixels = blank()
    write(pixels, text, x, y, BLACK)
    return np.asarray((pixels == 0).all(axis=2))


def test_every_letter_of_a_device_id_is_there_and_no_two_are_alike() -> None:
    """Letters, digits, the signs of ids, dates and shares; each five by seven."""
    known = letters()
    assert set(string.ascii_letters + string.digits + "-_.:%?") <= known.keys()
    assert {points.shape for points in known.values()} == {(7, 5)}
    assert len({points.tobytes() for points in known.values()}) == len(known)


def test_a_text_stands_where_it_is_put() -> None:
    """From its upper left corner on, as wide as is said, in points of two pixels."""
    rows, columns = np.nonzero(written("HI", x=10, y=6))
    assert (rows.min(), rows.max() + 1) == (6, 6 + LETTER_HEIGHT)
    assert (columns.min(), columns.max() < 10 + text_width("HI")) == (10, True)
    assert written("H").sum() == letters()["H"].sum() * SCALE**2


def test_a_character_without_a_letter_is_a_question_mark() -> None:
    """Nothing is left out silently."""
    assert (written("ä😀") == written("??")).all()


def test_what_does_not_fit_is_cut_at_the_edge() -> None:
    """Also to the left and above: nothing wraps round."""
    for x, y in ((-3, -3), (195, 35), (-500, 0), (500, 500)):
        assert written("W" * 3, x=x, y=y)[12:28, 60:180].sum() == 0
    assert written("W" * 100)[:, -ADVANCE:].any()
