"""Which recipes are accepted, and the errors for the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import RecipeError
from compressor.recipe.read import parse_recipe, read_recipe
from compressor.steps import equalize, qat

MODELS = Path(__file__).parents[2] / "models"
MINIMAL = '[model]\nname = "digits"\n'


def _refusal(text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.encode(), "r.toml")
    return str(caught.value)


@pytest.mark.parametrize("name", ["digits", "meter_digits", "nab"])
def test_reads_the_recipes_we_ship(name: str) -> None:
    """Every recipe under models/ reads, and its gates name targets that it has."""
    recipe = read_recipe(MODELS / name)
    assert recipe.folder == MODELS / name
    assert recipe.gates
    assert recipe.compress[0].scheme == "static_int8"


def test_an_older_recipe_keeps_its_digest() -> None:
    """The text that digests are made of has a later key of ``[data]`` only where it is given."""
    plain = parse_recipe(MINIMAL.encode()).data
    assert repr(plain) == (
        "DataRecipe(dataset='digits', path='', slices='', split='', train_slices=(), label='exact', width=32, "
        "height=32, colour='rgb', orientation='exif', decode='reduced', allow_corrupt=0, mean=0.5, std=0.25, "
        "target_mean=(), target_std=(), shares={}, front_end='', options={})"
    )
    text = MINIMAL + '[data]\nresize = "letterbox"\nfill = 3\nmean = [1, 2, 3]\n'
    assert "mean=(1.0, 2.0, 3.0)" in repr(parse_recipe(text.encode()).data)
    assert repr(parse_recipe(text.encode()).data).endswith(", options={}, resize='letterbox', fill=3)")


def test_fills_everything_but_the_name_with_defaults() -> None:
    """A recipe of one line is complete: data set, one host target, one quantize step."""
    recipe = parse_recipe(MINIMAL.encode())
    assert recipe.data.dataset == "digits"
    assert [target.name for target in recipe.targets] == ["host"]
    assert [step.step for step in recipe.compress] == ["quantize"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + "[train]\nepoch = 3\n", "in [train] one of epochs"),
        (MINIMAL + "[train]\nepoch = 3\n", "got 'epoch': did you mean 'epochs'?"),
        (MINIMAL + "[acceptance]\nlatency_slak = 2\n", "got 'latency_slak': did you mean 'latency_slack'?"),
        (
            MINIMAL + "[data]\nmean = [0.1, 0.2]\n",
            "[data] mean one number or 3, one a channel, with colour = 'rgb', got",
        ),
        (
            MINIMAL + '[data]\ncolour = "grey"\nstd = [1, 1, 1]\n',
            "[data] std one number with colour = 'grey', got [1.0",
        ),
        (MINIMAL + "[data]\nstd = [0.2, 0.0, 0.2]\n", "[data] std between 1e-06 and 100000, got 0"),
        (MINIMAL + '[data]\nmean = "imagenet"\n', "mean to be a number or a list of a number, got str 'imagenet'"),
        (MINIMAL + "[data]\nmean = []\n", "[data] mean one number or 3"),
        (MINIMAL + "[data]\nscale = 0\n", "[data] scale above 0 and at most 1000, got 0"),
        (
            MINIMAL + '[data]\nresize = "crop"\n',
            "resize to be stretch or centre_crop or letterbox, got 'crop': did you",
        ),
        (MINIMAL + '[data]\nresample = "cubic"\n', "got 'cubic': did you mean 'bicubic'?"),
        (MINIMAL + '[data]\ncolour = "gbr"\n', "[data] colour to be rgb or bgr or grey, got 'gbr'"),
        (
            MINIMAL + '[data]\nresize = "centre_crop"\nresize_to = 31\n',
            "[data] resize_to at least 32, the input's longer side, or 0, got 31",
        ),
        (MINIMAL + '[data]\nresize = "letterbox"\nfill = 256\n', "[data] fill 0 to 255, a level of the image, got 256"),
        (
            MINIMAL + '[data]\nantialias = false\nresample = "box"\ndecode = "full"\n',
            "[data] antialias = false only with resample = 'bilinear', got 'box'",
        ),
        (MINIMAL + '[data]\nbits = 12\ncolour = "grey"\n', "[data] bits 8 or 16, those of a pixel's value, got 12"),
        (MINIMAL + "[data]\nbits = 16\n", "with [data] bits = 16 colour = 'grey' and no front end, got colour = 'rgb'"),
        (MINIMAL + "[data]\nantialias = false\n", "[data] decode = 'full' with antialias = false, got 'reduced'"),
        (MINIMAL + '[data]\nresample = "nearest"\n', "decode = 'full' with resample = 'nearest', got 'reduced'"),
        (MINIMAL + "[trian]\n", "got [trian]: did you mean 'train'?"),
        (MINIMAL + "[gates]\nacuracy_drop = {max = 0.01}\n", "did you mean 'accuracy_drop'?"),
        (MINIMAL + "[gates]\nmap_drop = {max = 0.01}\n", "[gates] ranking_precision_drop, as this gate is called now"),
        (MINIMAL + "[gates]\naccuracy_drop = {maxx = 0.01}\n", "did you mean 'max'?"),
        (MINIMAL + "[gates]\naccuracy_drop = {}\n", "[gates] accuracy_drop max, as {max = 0.01}, got {}"),
        (MINIMAL + "[gates]\naccuracy_drop = {min = 0.01}\n", "[gates] accuracy_drop max"),
        (MINIMAL + "[gates]\nsuperiority = {max = 0.01}\n", "[gates] superiority min"),
        (MINIMAL + "[gates]\nsize_bytes = {max = 1, min = 0}\n", "[gates] size_bytes max or min"),
        (MINIMAL + '[gates]\nsize_bytes = {max = 1, on = "pie"}\n[targets.pi]\n', "did you mean 'pi'?"),
        (MINIMAL + '[[compress]]\nstep = "quantise"\n', "did you mean 'quantize'?"),
        (MINIMAL + '[compress]\nstep = "quantize"\n', "write [[compress]]"),
        (
            MINIMAL + '[[compress]]\nstep = "quantize"\n[[compress]]\nstep = "quantize"\nscheme = "dynamic_int8"\n',
            "one [[compress]] 'quantize' for target 'host', got 2 (static_int8, dynamic_int8): give each an on",
        ),
        (MINIMAL + "[targets.pi]\ncores = 1\n", "in [targets.pi] one of runtime, cpu, threads, format, got 'cores'"),
        (MINIMAL + '[targets.pi]\ncpu = ""\n', "[targets] cpu the device's processor, as its `uname -m` prints it"),
        ("", "Expected in [model] the key 'name'"),
    ],
)
def test_names_the_unknown_key_its_table_and_the_nearest_valid_one(text: str, said: str) -> None:
    """A misspelt key is named together with the nearest valid one."""
    assert said in _refusal(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINIMAL + '[train]\nepochs = "3"\n', "[train] epochs to be a whole number, got str '3'"),
        (MINIMAL + "[train]\nepochs = true\n", "to be a whole number, got bool"),
        (MINIMAL + "[train]\nepochs = 0\n", "[train] epochs between 1 and 10000, got 0"),
        (MINIMAL + "[data]\ntrain_slices = 3\n", "to be a list of text"),
        (MINIMAL + '[data]\ncolour = "gray"\n', "did you mean 'grey'?"),
        (MINIMAL + "[data]\nwidth = 100000\n", "[data] width between"),
        ('[model]\nname = "Not A Name"\n', "[model] name"),
        (MINIMAL + "[train]\nlearning_rate = nan\n", "learning_rate between"),
        ('[model]\nname = "m"\nsecurity_floor = -1\n', "[model] security_floor between"),
        (MINIMAL + "[data]\nshares = {train = 1}\n", "shares positive train, calibration, gate, reference"),
        ("model = 3\n", "[model] to be a table"),
        (MINIMAL + "[gates]\naccuracy_drop = {max = 1}\n", "accuracy_drop max as a share (0.01 is one point) between"),
        (
            MINIMAL + "[gates]\nflip_ratio = {max = 2}\n",
            "flip_ratio max as a share (0.01 is 1 %) between 0 and 1, got 2",
        ),
        (MINIMAL + "[gates]\nsize_bytes = {max = 0}\n", "size_bytes max (nothing is of that size) between 1e-09"),
        (MINIMAL + "[gates]\nlatency_p95_ms = {max = -1}\n", "latency_p95_ms max (nothing is of that size)"),
        (MINIMAL + "[acceptance]\ngolden_tolerance = 5\n", "[acceptance] golden_tolerance between 0 and 1, got 5"),
        (MINIMAL + "[acceptance]\nlatency_slack = 0.9\n", "[acceptance] latency_slack between 1 and 1000, got 0.9"),
        (MINIMAL + "[acceptance]\nmin_latency_budget_ms = 0\n", "[acceptance] min_latency_budget_ms between 1 and"),
        (MINIMAL + "[gates]\naccuracy = {min = 92}\n", "accuracy min as a share (0.01 is 1 %) between 0 and 1, got 92"),
    ],
)
def test_names_a_wrong_type_or_value(text: str, said: str) -> None:
    """The error for a wrong type or range has the expectation."""
    assert said in _refusal(text)


def test_says_where_a_recipe_is_not_toml() -> None:
    """A syntax error carries the file's name and the line."""
    refusal = _refusal("[model\n")
    assert refusal.startswith("Expected TOML in r.toml, got: ")
    assert "line 1" in refusal


def test_the_default_acceptance_leaves_the_digest_of_a_recipe_as_it_was() -> None:
    """Bundles of recipes without the table keep their bytes: lineage has the digest of this text."""
    written = parse_recipe((MINIMAL + "[acceptance]\nlatency_slack = 4\n").encode())
    assert repr(written) == repr(parse_recipe(MINIMAL.encode()))
    assert "acceptance" not in repr(written)


def test_smoothing_has_the_keys_of_its_smoother_all_written_out() -> None:
    """A later change of defaults changes no release; without the table the digest of a recipe stays as it was."""
    read = parse_recipe((MINIMAL + '[smoothing]\nkind = "mean"\nwindow = 7\ninterval_ms = 40\n').encode())
    options = {"debounce": 1.0, "gap_ms": 2000.0, "hold_ms": 0.0, "window": 7.0}
    assert (read.smoothing.kind, read.smoothing.interval_ms, read.smoothing.options) == ("mean", 40, options)
    assert repr(read) == repr(parse_recipe(MINIMAL.encode()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("window = 3", "Expected in [smoothing] kind as one of events, mean, got none"),
        ('kind = "men"', "did you mean 'mean'"),
        ('kind = "mean"\nwindows = 3', "did you mean 'window'"),
        ('kind = "mean"\nwindow = 0', "window between 1 and 1000, got 0"),
        ('kind = "mean"\ninterval_ms = -1', "interval_ms between 0 and"),
        ('kind = "mean"\ninterval_ms = 2001', "gap_ms of at least interval_ms (2001) or 0, got 2000"),
    ],
)
def test_a_smoother_that_is_none_is_named(text: str, words: str) -> None:
    """Before anything is trained."""
    assert words in _refusal(f"{MINIMAL}[smoothing]\n{text}\n")


@pytest.mark.parametrize("text", ["interval_ms = 2000", "interval_ms = 9000\ngap_ms = 0"])
def test_neighbours_that_are_one_stream_are_accepted(text: str) -> None:
    """As far apart as the gap, or without any gap."""
    assert parse_recipe((MINIMAL + f'[smoothing]\nkind = "mean"\n{text}\n').encode()).smoothing.kind == "mean"


def test_a_missing_file_is_a_recipe_error(tmp_path: Path) -> None:
    """A recipe that is not there is a coded error that names the path."""
    with pytest.raises(RecipeError, match=r"nowhere\.toml"):
        read_recipe(tmp_path / "nowhere.toml")


def test_a_tilde_in_a_path_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the path of data and of an imported model."""
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "recipe.toml"
    path.write_text('[model]\nname = "m"\ncheckpoint = "~/a.pt"\n[data]\npath = "~/d"\n')
    read = read_recipe(path)
    assert (read.data.path, read.model.checkpoint) == ("/home/me/d", "/home/me/a.pt")
    path.write_text('[model]\nname = "m"\n[data]\npath = "~nobody-here/d"\n')
    with pytest.raises(RecipeError, match="a home directory for ~nobody-here"):
        read_recipe(path)


def test_fine_tuning_changes_epochs_and_rate_only() -> None:
    """Training from a checkpoint uses the fine-tuning epochs and rate and keeps the rest."""
    train = parse_recipe((MINIMAL + "[train]\nfine_tune_epochs = 2\nseed = 9\n").encode()).train
    tuned = train.for_fine_tuning()
    assert (tuned.epochs, tuned.seed, tuned.learning_rate) == (2, 9, train.fine_tune_learning_rate)


def test_whole_numbers_stand_for_floats_but_not_the_reverse() -> None:
    """``max = 1`` is a number; ``epochs = 1.5`` is not a whole number."""
    recipe = parse_recipe((MINIMAL + "[gates]\nsize_bytes = {max = 131072}\n").encode())
    assert recipe.gates[0].max == 131072.0
    assert "whole number" in _refusal(MINIMAL + "[train]\nepochs = 1.5\n")


QAT = '[[compress]]\nstep = "qat"\n'
EQUALIZE = '[[compress]]\nstep = "equalize"\n'
QUANTIZE = '[[compress]]\nstep = "quantize"\n'
ON_BOTH = '[targets.a]\nruntime = "onnx"\n[targets.b]\nruntime = "litert"\n'


@pytest.mark.parametrize(
    ("compress", "targets", "grid"),
    [
        (QAT + QUANTIZE, "", (True, True)),
        (EQUALIZE + QUANTIZE, "", (True, True)),
        (QAT + QUANTIZE + "reduce_range = false\nper_channel = false\n", "", (False, False)),
        (QAT + QUANTIZE, '[targets.b]\nruntime = "litert"\n', (True, False)),
        (QAT + QUANTIZE + 'on = "a"\n' + QUANTIZE + 'on = "b"\n', ON_BOTH, (True, True)),
        (QAT + QUANTIZE + 'scheme = "float16"\n', "", (True, False)),
        (QAT + "reduce_range = true\n" + QUANTIZE + "reduce_range = true\n", "", (True, True)),
    ],
)
def test_network_steps_work_for_the_grid_of_the_quantization(
    compress: str, targets: str, grid: tuple[bool, bool]
) -> None:
    """``qat`` and ``equalize`` take what they don't set from the quantize step: (per channel, 7 bits)."""
    step = parse_recipe(('[model]\nname = "m"\n' + compress + targets).encode()).compress[0]
    assert isinstance(step, qat.Settings | equalize.Settings)
    assert (step.per_channel, step.reduce_range) == grid


@pytest.mark.parametrize(
    ("compress", "key"),
    [
        (QAT + "reduce_range = false\n" + QUANTIZE, "reduce_range"),
        (QAT + QUANTIZE + 'per_channel = false\non = "a"\n' + QUANTIZE + 'on = "b"\n', "per_channel"),
    ],
)
def test_a_grid_that_is_set_otherwise_is_refused(compress: str, key: str) -> None:
    """What the recipe sets itself is not changed, and steps of two grids have no common one."""
    with pytest.raises(RecipeError, match=f"same {key}"):
        parse_recipe(('[model]\nname = "m"\n' + compress + ON_BOTH).encode())
