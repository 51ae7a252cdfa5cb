"""Front ends: sounds, windows and strokes as pictures, equal on both sides, and refused inputs."""

from __future__ import annotations

import io
import json
import re
import struct
import wave

import numpy as np
import pytest

from compressor.data.sound_events import pcm
from edge_agent import front_ends
from edge_agent.errors import ImageError, SensorError
from edge_agent.front_ends import log_mel, mfcc
from edge_agent.streams.recordings import read_sound

RATE = 8000
SOUND = {"sample_rate_hz": RATE, "clip_s": 0.25, "mels": 24, "low_hz": 100.0}
STROKE = json.dumps([[0, 0], [1, 0], [1, 2]]).encode()


def wav(seconds: float = 0.25, *, hertz: float = 1000.0, width: int = 2, channels: int = 1, rate: int = RATE) -> bytes:
    """Return a WAV of a sine at full scale."""
    sine = np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    raw = (sine * 32767).astype("<i2") if width == 2 else (sine * 127 + 128).astype(np.uint8)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.repeat(raw, channels).tobytes())
    return buffer.getvalue()


def test_the_folder_is_the_registry() -> None:
    """Every front end of the folder is found by name; an unknown one is refused."""
    assert front_ends.names() == ("log_mel", "mfcc", "stroke", "window")
    with pytest.raises(SensorError, match="Expected a front end of log_mel"):
        front_ends.decode("lidar", b"", {})


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("log_mel", wav(), SOUND),
        ("mfcc", wav(), SOUND),
        ("window", b"0,1\n0.5,-1\n", {"steps": 2, "channels": 2}),
        ("stroke", STROKE, {}),
    ],
)
def test_pictures_are_uint8_with_equal_channels_and_the_same_each_time(
    name: str, data: bytes, options: dict[str, float]
) -> None:
    """Each front end returns uint8 (H, W, 3), equal channels, equal bytes twice, also with all defaults written out."""
    picture = front_ends.decode(name, data, options)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert np.array_equal(picture, np.repeat(picture[:, :, :1], 3, axis=2))
    assert np.array_equal(picture, front_ends.decode(name, data, front_ends.complete(name, options)))


def test_a_full_scale_sine_is_zero_decibels_in_its_own_band() -> None:
    """The decibels are relative to a full-scale sine, and the loudest band is the one around its frequency."""
    settings = front_ends.settings_from(log_mel.Settings, SOUND)
    levels = log_mel.decibels(wav(hertz=1000.0), settings)[3]
    edges = np.linspace(*(2595 * np.log10(1 + np.array([100.0, 4000.0]) / 700)), 26)
    peak = 2595 * np.log10(1 + 1000 / 700)
    assert edges[levels.argmax()] < peak < edges[levels.argmax() + 2]
    assert abs(levels.max()) < 3.0


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (1, 2), (2, 2)])
def test_8_bits_and_stereo_are_read_as_16_bit_mono_is(width: int, channels: int) -> None:
    """The same sine results in nearly the same picture in every accepted sample format."""
    options = {**SOUND, "floor_db": -40.0}
    first = front_ends.decode("log_mel", wav(), options).astype(int)
    other = front_ends.decode("log_mel", wav(width=width, channels=channels), options).astype(int)
    assert np.abs(first - other).max() <= 8


def test_clips_of_any_length_give_pictures_of_one_size() -> None:
    """A short clip is padded, a long one cut about the middle."""
    sizes = {front_ends.decode("log_mel", wav(seconds), SOUND).shape for seconds in (0.05, 0.25, 2.0)}
    assert sizes == {(14, 24, 3)}


def test_the_cepstrum_is_the_orthonormal_dct_of_the_bands() -> None:
    """With all coefficients, the DCT preserves the energy of each frame."""
    settings = front_ends.settings_from(mfcc.Settings, {**SOUND, "coefficients": 24})
    bands = log_mel.decibels(wav(), settings)
    assert np.allclose((mfcc.cepstrum(wav(), settings) ** 2).sum(axis=1), (bands**2).sum(axis=1))


def _huge_header() -> bytes:
    data = bytearray(wav())
    data[40:44] = struct.pack("<I", 2**31 - 2)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (wav()[:-100], "cut off"),
        (wav()[:20], "Expected a WAV"),
        (_huge_header(), "cut off"),
        (b"ID3 not a wav at all", "Expected a WAV"),
        (b"", "Expected a WAV"),
        (wav(0.0), "empty"),
        (wav(rate=16_000), "Expected sound at 8000 Hz, got 16000"),
        (bytes(log_mel.MAX_WAV_BYTES + 1), "at most"),
    ],
)
def test_sounds_that_cannot_be_read_are_refused(data: bytes, said: str) -> None:
    """Truncated, foreign, empty, huge and differently sampled files raise a SensorError with the reason."""
    with pytest.raises(SensorError, match=said) as raised:
        front_ends.decode("log_mel", data, SOUND)
    assert isinstance(raised.value, ImageError)


def _headed(data: bytes, how: str) -> bytes:
    """Return a WAV with the header of a pipe (``ffmpeg``), of a recorder that was killed, or the extensible one."""
    if how in {"piped", "killed"}:
        length = (b"\xff" if how == "piped" else b"\0") * 4
        return data[:4] + length + data[8:40] + length + data[44:] + b"\1" * (how == "killed" and data[32] > 1)
    chunk = struct.pack("<H", 0xFFFE) + data[22:36] + struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    return data[:16] + struct.pack("<I", len(chunk)) + chunk + data[36:]


@pytest.mark.parametrize("how", ["piped", "killed", "extensible"])
@pytest.mark.parametrize("keys", [{}, {"width": 1}, {"channels": 2}])
def test_a_wav_is_read_as_the_microphone_reads_it(how: str, keys: dict[str, int]) -> None:
    """Of unknown length, with half a frame at its end, or the longer header: the same picture and samples."""
    plain = wav(**keys)
    data = _headed(plain, how)
    assert np.array_equal(front_ends.decode("log_mel", data, SOUND), front_ends.decode("log_mel", plain, SOUND))
    heard, wanted = read_sound(data), read_sound(plain)
    assert (heard.rate_hz, heard.samples.tolist()) == (RATE, wanted.samples.tolist())
    assert np.array_equal(pcm(data, "a.wav", RATE), wanted.samples)


def test_what_an_odd_header_lacks_is_named_with_the_command_that_helps() -> None:
    """A sound that is cut off behind an extensible header, one of another rate and one without samples."""
    for data in (_headed(wav(), "extensible")[:-9], wav(rate=16_000), _headed(wav(0.0), "piped"), wav()[:99]):
        with pytest.raises(SensorError, match=r"convert .* \(ffmpeg -i FILE -ar 8000 -ac 1 -c:a pcm_s16le NEW.wav\)"):
            front_ends.decode("log_mel", data, SOUND)
    assert read_sound(_headed(wav(), "extensible")[:-9]) is None


def _coded(number: int, width: int) -> bytes:
    """Return a WAV whose header states format ``number`` and ``width`` bytes a sample."""
    data = bytearray(wav(width=2))
    data[20:22] = struct.pack("<H", number)
    data[32:36] = struct.pack("<HH", width, 8 * width)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [(_coded(3, 4), "unknown format: 3: convert it to plain 16-bit PCM"), (_coded(6, 1), "unknown format: 6"),
     (_coded(1, 3), "got 24 bits and 1 channels: convert it"), (_coded(1, 4), "got 32 bits and 1")],
)  # fmt: skip
def test_sounds_of_another_coding_are_refused_by_name(data: bytes, said: str) -> None:
    """Float samples, A-law, 24 and 32 bits: none is read as if it were 16-bit PCM."""
    for name in ("log_mel", "mfcc"):
        with pytest.raises(SensorError, match=re.escape(said)):
            front_ends.decode(name, data, {"sample_rate_hz": RATE, "clip_s": 0.25})


def test_damaged_sounds_give_a_picture_or_a_sensor_error() -> None:
    """300 WAV files with random bytes changed never raise anything else."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(wav(0.02))
        for place in rng.integers(0, 60, 4):
            data[place] = rng.integers(256)
        try:
            front_ends.decode("log_mel", bytes(data), SOUND)
        except SensorError:
            continue


def test_text_json_and_raw_windows_give_one_picture() -> None:
    """CSV with a header, JSON and float32 bytes of the same numbers are the same to the model."""
    values, options = np.array([[0, 1], [0.5, -1], [0.25, 3]], "<f4"), {"steps": 3, "channels": 2, "high_1": 3.0}
    csv = b"x,y\n" + "\n".join(",".join(map(str, row)) for row in values.tolist()).encode()
    pictures = [front_ends.decode("window", csv, options)]
    pictures.append(front_ends.decode("window", json.dumps(values.tolist()).encode(), options))
    pictures.append(front_ends.decode("window", values.tobytes(), {**options, "binary": 1}))
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert pictures[0][:, :, 0].tolist() == [[128, 128], [191, 0], [159, 255]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"0,1\n,2", "got nan at step 1, channel 0: send a number there"),
        (b"0,1\n2", "2 cells in each line, got 1 in line 2: write one cell for each channel"),
        (b"x,y\n0,1\n2", "2 cells in each line, got 1 in line 3: write one cell for each name of the header"),
        (b"[[0, 1], [2]]", "equally many numbers, got: .*: send numbers alone, as many in each row"),
        (b"x,y\n", "Expected lines of numbers, got only 'x,y': write a line of numbers a step below the header"),
        (b"0;1\n2;3", "parted by commas, got ';' in '0;1.*: write commas between cells, and points in fractions"),
        (b"x;y\n0,5;1\n2;3", "parted by commas, got ';'|2 cells in each line"),
        (b"0\t1\n2\t3", "parted by commas, got '.t'"),
        (b"[0, 1]", r"steps x 2 channels, got \(2, 1\): send 2 numbers for each step, as JSON \[\[0.1, 0.2\]"),
        (b'{"x": 1}', "a list of steps, got dict .*: send as JSON"),
        (b"a,1\nb,2", "text in 1 of 2: column 0 'a': send the numbers that the model was trained on"),
        (b"x,y\na,1\n2,b", "text in 2 of 2: x 'a', y 'b'"),
        (b"0\n1", "2 channels, got .*: send 2 numbers for each step"),
        (b"0,1\n2,3\n4,5", 'Expected 2 steps, got 3: send that many in each input; the source "lines" reads longer'),
        (b"0 1\n2 3", "parted by commas, got blanks between numbers in '0 1.*: write commas between cells"),
        (b"x,y\n0 1, 2\n2,3", "parted by commas, got blanks between numbers"),
        (b"[[0, 1], [2", "as JSON, got text that is none: .*: send a list of steps"),
        (b"\xff\xfe", "CSV or JSON text, got 2 bytes that are no UTF-8: write text"),
        (b'[{"x": 1}]', "each step a number or a list, got an object in .*: send as JSON .*, or lines of objects by"),
        (b"", "got an empty file .0 bytes.: write it beside, and rename it"),
        (b" \n", "got an empty file .2 bytes."),
    ],
)
def test_windows_that_cannot_be_read_are_refused(data: bytes, said: str) -> None:
    """Missing numbers, other shapes and other formats raise a SensorError with the position."""
    with pytest.raises(SensorError, match=said):
        front_ends.decode("window", data, {"steps": 2, "channels": 2})


NAMED = {"steps": 1, "channels": 3, "low": 0.0, "high": 255.0}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"10,20,30", ""),
        (b"a,b,c\n10,20,30", ""),
        (b" a , b,c \n10,20,30", ""),
        (b"c,a,b\n30,10,20", "Expected the columns a, b, c, got c, a, b: read by their names"),
        (b"[[10, 20, 30]]", ""),
    ],
)
def test_a_header_in_another_order_is_read_by_its_names(data: bytes, said: str) -> None:
    """And that is said; rows without names are in the order of the training data."""
    picture, remark = front_ends.decode_named("window", data, NAMED, ("a", "b", "c"))
    assert picture[0, :, 0].tolist() == [10, 20, 30]
    assert remark == said
    assert front_ends.decode("window", data, NAMED)[0, :, 0].tolist() == ([30, 10, 20] if said else [10, 20, 30])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a,b,x\n1,2,3", "columns a, b, c, got a, b, x (missing: c; not of the model: x): name them as"),
        (b"a,b\n1,2", "got a, b (missing: c)"),
        (b"a,b,c,id\n1,2,3,4", "got a, b, c, id (not of the model: id)"),
        (b"a,b,c,a\n1,2,3,4", "got a, b, c, a (twice: a)"),
    ],
)
def test_a_header_with_other_names_is_refused_with_both(data: bytes, said: str) -> None:
    """All that are missing and all that are foreign, at once."""
    with pytest.raises(SensorError, match=re.escape(said)):
        front_ends.decode_named("window", data, NAMED, ("a", "b", "c"))


@pytest.mark.parametrize("data", [b"10,,30", b"a,b,c\n10,,30", b"b,c,a\n,30,10", b"[[10, NaN, 30]]"])
def test_a_missing_number_is_named_by_its_column(data: bytes) -> None:
    """Whatever order the header has."""
    with pytest.raises(SensorError, match="got nan at step 0, column 'b'"):
        front_ends.decode_named("window", data, NAMED, ("a", "b", "c"))


def test_a_window_is_stretched_only_where_that_is_asked_for() -> None:
    """With resample = 1 a straight line stays a straight line."""
    options = {"steps": 5, "resample": 1, "low": 0.0, "high": 4.0}
    picture = front_ends.decode("window", b"0\n2\n4", options)
    assert picture[:, 0, 0].tolist() == [0, 64, 128, 191, 255]


def test_place_and_size_of_a_stroke_do_not_matter_but_its_direction_does() -> None:
    """A stroke that is moved and enlarged has the same picture; drawn backwards it has another one."""
    points = np.array([[0, 0], [1, 0], [1, 2]], float)
    first = front_ends.decode("stroke", json.dumps(points.tolist()).encode(), {})
    moved = front_ends.decode("stroke", json.dumps((points * 4 + 8).tolist()).encode(), {})
    back = front_ends.decode("stroke", json.dumps(points[::-1].tolist()).encode(), {})
    assert np.array_equal(first, moved)
    assert not np.array_equal(first, back)


@pytest.mark.parametrize("data", [b"", b"[]", b"[[0, 0]]", b'[{"x": 1}, {"x": 2}]', b"[[0, 0], [NaN, 1]]", b"7"])
def test_strokes_that_are_none_are_refused(data: bytes) -> None:
    """Too few points, points without y and invalid numbers raise a SensorError."""
    with pytest.raises(SensorError):
        front_ends.decode("stroke", data, {})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("log_mel", {"mel": 32}, "did you mean 'mels'"),
        ("log_mel", {"mels": 32.5}, "a whole number"),
        ("log_mel", {"hop_ms": 1.0, "clip_s": 60.0}, "at most 4096 frames"),
        ("log_mel", {"mels": 256}, "every mel band"),
        ("log_mel", {"high_hz": 9000.0}, "high_hz <= 8000"),
        ("log_mel", {"ceiling_db": -95.0}, "above floor_db"),
        ("mfcc", {"coefficients": 40}, "as many coefficients as mels"),
        ("mfcc", {"low_12": 0.0}, "columns 0 to 9"),
        ("window", {"low": 2.0}, "high above low"),
        ("window", {"high": float("nan")}, "between -1000000000000 and 1000000000000, got nan"),
        ("window", {"high_0": float("nan")}, "window high_0 to be a finite number"),
        ("window", {"columns": 1.0}, "Expected in window one of steps"),
        ("log_mel", {"low_0": 1.0}, "did you mean 'low_hz'"),
        ("stroke", {"side": 8, "margin_px": 4}, "leave room"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, float], said: str) -> None:
    """An option that is unknown, out of range or against another is named."""
    with pytest.raises(SensorError, match=said):
        front_ends.complete(name, options)
