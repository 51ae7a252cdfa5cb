"""The study: Optuna suggests what to try next; trials are stored where several hosts can share them.

Decides order, budget and what counts as tried. Does not measure (``trial`` does) nor choose (``pareto`` does).

Rules, in this order:

1. The float model is tried first, the recipe's own steps second, whatever the sampler would suggest.
2. A trial that could not be made (``CompressorError``) is recorded as failed with its message, counts, and is not tried
   again. A full disk or an unwritable folder ends the search instead, because it says nothing about the form.
3. A form that was tried, or that another host is trying, is not measured again; nor is a hopeless one: narrower than a
   network that could not be pruned as far, or of a scheme that failed twice and never worked. Such a trial is recorded
   as pruned, does not count, and the nearest untried form is enqueued.
4. An interrupted trial is recorded as failed without a message; it does not count and is tried again. A trial whose
   process was killed fails when its heartbeat stops.

Seeds: each process creates a new sampler, so it is seeded with the recipe's seed plus the number of existing trials;
with the recipe's seed only, a continued search would repeat its suggestions. Samplers learn from complete and pruned
trials only: rule 3, not the sampler, avoids failed forms. With one host the sequence of suggestions is determined by
the seed and the figures; latencies are measured, so two runs may differ.
"""

from __future__ import annotations

import logging
import platform
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from compressor.errors import CompressorError, PackageError, PluginError, PruneError, QuantizeError
from compressor.recipe.model import Recipe
from compressor.search.pareto import FP32, OWN, SAMPLED, TrialFigures, Tried, points
from compressor.search.space import Point, Space, is_integer, key_of, nearest, parameters, said, steps_of, suggested
from compressor.search.trial import Ground, measured, study_digest
from compressor.steps._settings import Settings

if TYPE_CHECKING:
    import optuna

DEFAULT_DROP = 0.01
"""The allowed drop if the recipe has no gate ``accuracy_drop``: one point, as in the guide's recipes."""

_HEARTBEAT_S, _GRACE_S = 20, 60
_START_UP_TRIALS = 8
_POPULATION = 10
_NAME_DIGITS = 16
_REFUSALS = 2
_OF_SCHEME = frozenset({QuantizeError.code, PluginError.code})


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to search. ``trials``: total number in the study, including those of other hosts and earlier runs.

    ``timeout_s``: no trial is started after it, 0 means none; ``sampler``: ``tpe`` or ``nsga2``.
    """

    trials: int = 20
    timeout_s: float = 0.0
    sampler: str = "tpe"


class _FailedTrialError(Exception):
    """A form that could not be made or measured; recorded, but never shown."""


def allowed_drop(ground: Ground) -> float:
    """Return the largest drop, 0..1, that the recipe's gate ``accuracy_drop`` allows on the target."""
    found = [gate.max for gate in ground.recipe.gates if gate.name == "accuracy_drop" and gate.max is not None]
    return min(found, default=DEFAULT_DROP)


def steps_for(tried: Tried, ground: Ground) -> tuple[Settings, ...]:
    """Return the steps of ``tried``."""
    if tried.origin == OWN:
        return ground.own
    return steps_of(Point(**dict(tried.settings)), _with_own(ground), ground.target)  # type: ignore[arg-type]


def check_storage(storage: str) -> None:
    """Open ``storage`` (an SQLAlchemy URL), so that a bad one fails now and not after the training.

    Raises:
        PluginError: If Optuna or the database's driver is not installed.
        PackageError: If the storage can't be opened.
    """
    with _storage_errors():
        _storage(storage)


def search(ground: Ground, space: Space, budget: Budget, storage: str) -> tuple[Tried, ...]:
    """Search within ``budget`` and return everything that the study in ``storage`` (an SQLAlchemy URL) has tried.

    Raises:
        PluginError: If Optuna or the database's driver is not installed.
        PackageError: If the storage can't be opened or written, or the disk is full.
        KeyboardInterrupt: If a person stops it; completed measurements are kept.
    """
    with _storage_errors():
        study = _opened(ground, space, budget, storage)
        there = {item.origin for item in _settled(study)}
        there |= {trial.user_attrs.get("origin", SAMPLED) for trial in study.trials if trial.state.name == "WAITING"}
        firsts = {FP32: Point(), OWN: nearest(ground.own, space)}
        if key_of(ground.own) == key_of(()):
            del firsts[OWN]
        for origin, point in firsts.items():
            if origin not in there:
                study.enqueue_trial(parameters(point, space), user_attrs={"origin": origin})

        end = time.monotonic() + budget.timeout_s if budget.timeout_s else None
        objective = _objective(study, ground, space)
        while len(_settled(study)) < budget.trials and (end is None or time.monotonic() < end):
            ended: list[optuna.trial.FrozenTrial] = []
            note = [lambda _, trial: ended.append(trial)]  # noqa: B023 - called within this turn
            study.optimize(objective, n_trials=1, catch=(_FailedTrialError,), callbacks=note)
            last = ended[-1]
            if last.state.name == "PRUNED" and not _enqueue_untried(study, ground, space, last.user_attrs):
                ground.run.progress.say("every form of the space was tried")
                break
        return _settled(study)


def _storage(url: str) -> optuna.storages.RDBStorage:
    try:
        import optuna  # noqa: PLC0415 - Optuna only to search
    except ImportError as error:
        message = "Expected the package optuna, got none: pip install tinyfleet[compressor]"
        raise PluginError(message) from error
    optuna.logging.set_verbosity(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.RDBStorage(url, heartbeat_interval=_HEARTBEAT_S, grace_period=_GRACE_S)


def _opened(ground: Ground, space: Space, budget: Budget, storage: str) -> optuna.Study:
    kept = _storage(storage)
    import optuna  # noqa: PLC0415 - Optuna only to search

    name = f"{ground.recipe.model.name}-{ground.target.name}-{study_digest(ground, space)[:_NAME_DIGITS]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter(
            "ignore", FutureWarning
        )  # of constraints_func: Optuna 4 has no alternative, Optuna 7 removes it
        study = optuna.create_study(
            study_name=name, storage=kept, directions=["minimize"] * 3, load_if_exists=True
        )  # fmt: skip
        allowed, seed = allowed_drop(ground), ground.recipe.train.seed + len(study.trials)

        def constraints(trial: optuna.trial.FrozenTrial) -> tuple[float]:
            found = trial.user_attrs.get("measured")
            return (found["drop"] - allowed if found else 1.0,)

        if budget.sampler == "nsga2":
            study.sampler = optuna.samplers.NSGAIISampler(
                population_size=_POPULATION, seed=seed, constraints_func=constraints
            )
        else:
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=_START_UP_TRIALS, seed=seed, constraints_func=constraints
            )
    return study


def _enqueue_untried(study: optuna.Study, ground: Ground, space: Space, repeated: dict[str, object]) -> bool:
    """Enqueue the untried point nearest to the repeated one; return whether there is one."""
    taken = {trial.user_attrs.get("key") for trial in study.trials if _counts(trial) or trial.state.name == "RUNNING"}
    recipe, hopeless = _with_own(ground), _hopeless(study)
    left = [
        point
        for point in space.points()
        if not hopeless(point) and key_of(steps_of(point, recipe, ground.target)) not in taken
    ]
    if not left:
        return False
    random.Random(len(study.trials)).shuffle(left)  # noqa: S311 - which of equals comes first, no secret
    wanted = repeated["point"]
    best = min(left, key=lambda point: sum(value != wanted[name] for name, value in asdict(point).items()))  # type: ignore[index]
    study.enqueue_trial(parameters(best, space))
    return True


def _objective(study: optuna.Study, ground: Ground, space: Space) -> Callable[[optuna.Trial], tuple[float, ...]]:
    import optuna  # noqa: PLC0415 - see above

    host, recipe, tell = platform.node(), _with_own(ground), ground.run.progress.say

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        origin = str(trial.user_attrs.get("origin", SAMPLED))
        point = suggested(trial.suggest_categorical, space)
        steps = ground.own if origin == OWN else steps_of(point, recipe, ground.target)
        about = {"origin": origin, "host": host, "key": key_of(steps), "name": said(steps), "point": asdict(point)}
        for name, value in {**about, "integer": is_integer(steps)}.items():
            trial.set_user_attr(name, value)
        if _repeats(study, trial.number, about) or (origin == SAMPLED and _hopeless(study)(point)):
            raise optuna.TrialPruned
        try:
            found = measured(ground, steps)
        except PackageError:
            raise
        except CompressorError as error:
            trial.set_user_attr("code", error.code)
            trial.set_user_attr("error", str(error))
            tell(f"trial {trial.number}: {about['name']}: failed: {error}")
            raise _FailedTrialError from error
        trial.set_user_attr("measured", asdict(found))
        figures = f"{found.size_bytes} bytes, {points(found)}"
        tell(f"trial {trial.number}: {about['name']}: {found.latency_ratio:.2f} x latency, {figures}")
        return found.latency_ratio, float(found.size_bytes), found.drop

    return objective


def _repeats(study: optuna.Study, number: int, about: Mapping[str, object]) -> bool:
    """Return whether another trial has tried or is trying this form; the first two wait for no other trial."""
    for trial in study.get_trials(deepcopy=False):
        elsewhere = trial.state.name == "RUNNING" and trial.user_attrs.get("host") != about["host"]
        busy = elsewhere and about["origin"] == SAMPLED
        if trial.number != number and trial.user_attrs.get("key") == about["key"] and (_counts(trial) or busy):
            return True
    return False


def _hopeless(study: optuna.Study) -> Callable[[Point], bool]:
    """Return a function that tells whether a point would fail as earlier ones did."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if _counts(trial)]
    sampled = [trial.user_attrs for trial in ended if trial.user_attrs["origin"] == SAMPLED]
    narrow = [about["point"]["macs_ratio"] for about in sampled if about.get("code") == PruneError.code]
    refused = Counter(about["point"]["scheme"] for about in sampled if about.get("code") in _OF_SCHEME)
    worked = {about["point"]["scheme"] for about in sampled if "measured" in about}
    schemes = {scheme for scheme, times in refused.items() if times >= _REFUSALS} - worked
    return lambda point: point.macs_ratio <= max(narrow, default=0.0) or point.scheme in schemes


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    """Return whether the trial finished by itself: with figures, or with a failure that would repeat."""
    return trial.state.name == "COMPLETE" or (trial.state.name == "FAIL" and "error" in trial.user_attrs)


def _settled(study: optuna.Study) -> tuple[Tried, ...]:
    known, settled = {field.name for field in fields(Tried)} - {"measured"}, []
    for trial in study.get_trials(deepcopy=False):
        if _counts(trial):
            about = trial.user_attrs
            given = {name: value for name, value in about.items() if name in known}
            found = TrialFigures(**about["measured"]) if "measured" in about else None
            point = tuple(about["point"].items())
            settled.append(Tried(number=trial.number, measured=found, settings=point, **given))
    return tuple(settled)


def _with_own(ground: Ground) -> Recipe:
    """Return the recipe with its own steps, whose settings apply to the steps of a point."""
    return replace(ground.recipe, compress=ground.own)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Convert errors of Optuna and SQLAlchemy into ours; the URL may contain a password."""
    try:
        yield
    except CompressorError:
        raise
    except ImportError as error:
        message = f"Expected the driver of the database in --storage, got none: {error}: pip install it"
        raise PluginError(message) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in {"optuna", "sqlalchemy", "sqlite3"}:
            raise
        message = f"Expected a study in --storage, got {type(error).__name__}: check the URL, or leave it out"
        raise PackageError(message) from error
