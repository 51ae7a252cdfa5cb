"""When devices switch, how fast they download and what they compare, as a person fills it in."""

from __future__ import annotations

import pytest

from server.dashboard.conditions import Conditions
from server.errors import RolloutRefusedError
from wire.messages import MaintenanceWindow
from wire.shadow import ShadowOrder


def test_empty_fields_leave_everything_to_the_server() -> None:
    """No window, no limit, no comparison, the default deadline."""
    none = Conditions()
    assert (none.window, none.deadline_s, none.max_bytes_per_s, none.shadow) == (None, None, 0, None)
    assert (none.probation_s, none.success_ratio, none.error_ratio) == (None, None, None)


def test_what_is_filled_in_is_in_the_units_of_the_wire() -> None:
    """Hours, kilobytes, minutes and percent."""
    told = Conditions(start="22:00", end="06:00", days=("sat",), time_zone="Europe/Berlin", deadline_h=48,
                      rate_kb_s=20.5, shadow_min=60, limit_percent=2, required=True)  # fmt: skip
    assert told.window == MaintenanceWindow(start="22:00", end="06:00", days=("sat",), time_zone="Europe/Berlin")
    assert (told.deadline_s, told.max_bytes_per_s) == (172_800, 20_500)
    assert told.shadow == ShadowOrder(3600, 0.02, required=True)
    assert Conditions(shadow_min=1).shadow == ShadowOrder(60)
    gates = Conditions(probation_min=0, success_percent=95, errors_percent=0)
    assert (gates.probation_s, gates.success_ratio, gates.error_ratio) == (0, 0.95, 0)


@pytest.mark.parametrize(
    ("told", "text"),
    [(Conditions(start="22:00"), "Expected end of the maintenance window"),
     (Conditions(days=("mon",)), "Expected start of the maintenance window"),
     (Conditions(start="25:00", end="06:00"), "got '25:00'"),
     (Conditions(start="22:00", end="06:00", time_zone="../etc"), "Expected a time zone"),
     (Conditions(limit_percent=2), "Expected minutes of comparison"),
     (Conditions(required=True), "Expected minutes of comparison"),
     (Conditions(shadow_min=5, limit_percent=120), "Expected max_ratio of a shadow from 0 to 1"),
     (Conditions(shadow_min=10**9), "Expected seconds of a shadow"),
     (Conditions(success_percent=101), "Expected from 0 to 100 percent of devices that must commit"),
     (Conditions(errors_percent=-1), "Expected from 0 to 100 percent of failures")],
)  # fmt: skip
def test_half_a_condition_is_refused_with_what_is_missing(told: Conditions, text: str) -> None:
    """Nothing is created with a part of what a person meant."""
    with pytest.raises(RolloutRefusedError, match=text):
        _ = (told.window, told.shadow, told.success_ratio, told.error_ratio)
