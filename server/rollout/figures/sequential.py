"""What the devices of a rollout show so far of how often a release fails, and how far it disagrees. Pure.

Valid at any look: the chance that a release which fails no more often than allowed is ever said to fail more often is
at most ``RISK``, whatever the number of looks and groups (``server.betting``). Failing devices may settle before those
that commit, so outcomes are read in the order in which devices were assigned the release, and one under way counts as
good against the release and as bad for it. Devices fail independently in that: those of one site, which share what
they see, may fail together, and then it is less sure than it says.

A frame of a shadow is no observation, because frames of one scene depend on each other: a device is one, with its
share of inputs with two labels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.betting import Values, at_least, at_most, log_highest
from server.rollout.model import IN_FLIGHT, IN_VAIN, Member, MemberStanding, Pause, Rollout

Mask = npt.NDArray[np.bool_]
RISK = 0.05  # that it ever pauses a release that fails, and disagrees, no more often than allowed
CAVEAT = "devices of one site may fail together: then it is less sure"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRate:
    """A rate over devices: of ``devices`` with an outcome the mean is ``mean``, None before the first.

    With confidence 1 - ``risk`` each, whenever one looks, the release's rate is ``at_least`` and ``at_most`` that.
    ``allowed``: what it may be; ``exceeded``: it is surely above that.
    """

    devices: int
    mean: float | None
    at_least: float
    at_most: float
    allowed: float
    exceeded: bool
    risk: float

    @property
    def text(self) -> str:
        """The figures in words."""
        known = f"{100 * self.mean:.3g} % of {self.devices}" if self.mean is not None else "no outcome yet"
        between = f"between {100 * self.at_least:.3g} and {100 * self.at_most:.3g} %"
        sure = f"{between}, each with {100 * (1 - self.risk):g} % whenever you look; allowed {100 * self.allowed:.3g} %"
        return f"{known}, {sure}; {CAVEAT}"


def failing(rollout: Rollout) -> DeviceRate:
    """Return how often the release fails on devices: failed and stuck ones, unless tolerated or replaced."""
    return _shown(*_failures(rollout), _allowed(rollout), _risk(rollout))


def failing_by(outcomes: Iterable[tuple[int, MemberStanding]], rollout: Rollout) -> DeviceRate:
    """Return the same of a rollout without its members.

    Args:
        outcomes: group and standing of those that are judged, in the order in which they were assigned the release.
        rollout: the rollout, which may lack its members.
    """
    passed = _passed(rollout)
    found = [standing for group, standing in outcomes if group not in passed]
    under_way = np.array([one in IN_FLIGHT for one in found], dtype=bool)
    return _shown(np.array([float(one in IN_VAIN) for one in found]), under_way, _allowed(rollout), _risk(rollout))


def disagreeing(rollout: Rollout) -> DeviceRate | None:
    """Return how far the release disagrees with the one before, by device; None without a shadow that judges."""
    limit = judged_limit(rollout)
    return None if limit is None else _shown(*_shares(rollout), limit, _risk(rollout))


def sure_stop(rollout: Rollout) -> Pause | None:
    """Return why a release surely fails or disagrees more often than allowed, None while that is not shown."""
    limit, risk = judged_limit(rollout), _risk(rollout)
    if _surely(_failures(rollout)[0], _allowed(rollout), risk):
        return Pause("error_evidence", f"it surely fails on more devices than allowed: {failing(rollout).text}")
    if limit is not None and _surely(_shares(rollout)[0], limit, risk):
        told = _shown(*_shares(rollout), limit, risk).text
        return Pause("disagreement_evidence", f"its answers surely differ on more inputs than allowed: {told}")
    return None


def _failures(rollout: Rollout) -> tuple[Values, Mask]:
    """Return whether each device failed, 0 or 1, and which are under way, (N,) each."""
    members = _counted(rollout)
    bad = [float(one.standing in IN_VAIN) for one in members]
    return np.array(bad), np.array([one.standing in IN_FLIGHT for one in members], dtype=bool)


def _shares(rollout: Rollout) -> tuple[Values, Mask]:
    """Return the share of inputs with two labels of each device, 0 if under way, and which are, (N,) each."""
    members = [one for one in _counted(rollout) if one.standing in IN_FLIGHT or _ratio(one) is not None]
    under_way = [one.standing in IN_FLIGHT for one in members]
    shares = [0.0 if going else _ratio(one) or 0.0 for one, going in zip(members, under_way, strict=True)]
    return np.array(shares), np.array(under_way, dtype=bool)


def _counted(rollout: Rollout) -> Sequence[Member]:
    """Return the members that say something about the release, in the order of their assignment."""
    told = {MemberStanding.COMMITTED, *IN_VAIN, *IN_FLIGHT}
    passed = _passed(rollout)
    found = [
        one for one in rollout.members
        if one.standing in told and one.group not in passed and not (one.tolerated or one.replaced_by)
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.assigned_ms, one.device))


def _passed(rollout: Rollout) -> set[int]:
    return {index for index, group in enumerate(rollout.groups) if group.skipped_by}


def _allowed(rollout: Rollout) -> float:
    return max((group.error_ratio for group in rollout.groups), default=1.0)


def judged_limit(rollout: Rollout) -> float | None:
    """Return which share of inputs may have two labels; None if that is not judged."""
    return None if rollout.shadow is None or rollout.shadow.max_ratio >= 1 else rollout.shadow.max_ratio


def _risk(rollout: Rollout) -> float:
    """Return the risk of each of the tests, which share it."""
    return RISK if judged_limit(rollout) is None else RISK / 2


def _ratio(member: Member) -> float | None:
    return member.shadow.disagreement_ratio if member.shadow else None


def _surely(values: Values, allowed: float, risk: float) -> bool:
    """Return whether the mean is surely above ``allowed``; what may be at most 0 or 1 needs no evidence."""
    return 0 < allowed < 1 and log_highest(values, allowed) >= -math.log(risk)


def _shown(values: Values, under_way: Mask, allowed: float, risk: float) -> DeviceRate:
    done = values[~under_way]
    least, most = _bounds(values.tobytes(), np.where(under_way, 1.0, values).tobytes(), risk)
    return DeviceRate(
        devices=len(done),
        mean=float(done.mean()) if len(done) else None,
        at_least=least,
        at_most=most,
        allowed=allowed,
        exceeded=_surely(values, allowed, risk),
        risk=risk,
    )


@functools.lru_cache(maxsize=64)  # pages and lists ask for the same rollouts again and again
def _bounds(low: bytes, high: bytes, risk: float) -> tuple[float, float]:
    """Return both bounds of the mean; ``low`` and ``high`` are the values with those under way as good and as bad."""
    return at_least(np.frombuffer(low), risk), at_most(np.frombuffer(high), risk)
