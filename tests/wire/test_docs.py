"""``docs/reference/wire.md`` agrees with the code."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from wire import errors, manifest, measurement, messages, tuf_target
from wire.bundle import ENTRIES
from wire.canonical import canonical_bytes
from wire.codec import decode, encode
from wire.drift_report import MAX_REPORT_BYTES, MAX_STREAMS
from wire.messages import MAX_ENVELOPE_BYTES
from wire.software import SoftwareAnswer
from wire.topics import WITH_LEAF, Kind

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "wire.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"<!-- example: (\w+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
TYPES = {
    name: cls
    for module in (messages, manifest, tuf_target, measurement)
    for name, cls in vars(module).items()
    if dataclasses.is_dataclass(cls)
} | {"SoftwareAnswer": SoftwareAnswer}
PARTS = {
    "InstalledRelease", "ShadowCounts", "ShadowOrder",
    "ShadowPair", "MaintenanceWindow", "UnreadInputs", "UpdateStatus", "Watermark", "TensorSpec", "Preprocessing",
    "Budgets", "Delta", "SignedStatement", "InstalledSoftware",
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_every_example_decodes_and_encodes_to_itself(name: str, text: str) -> None:
    """No example has a field the code doesn't know or lacks one it does."""
    message = decode(TYPES[name], text.encode())
    assert message.extra == {}
    assert encode(message) == canonical_bytes(json.loads(text))


def test_every_message_has_an_example() -> None:
    """A message type without an example is not documented."""
    assert set(TYPES) - PARTS == {name for name, _ in EXAMPLES}


@pytest.mark.parametrize("kind", Kind)
def test_every_topic_kind_is_in_the_table(kind: Kind) -> None:
    """The table of topics is complete."""
    assert re.search(rf"^\| `{kind}{'/' if kind in WITH_LEAF else '`'}", PAGE, re.MULTILINE)


@pytest.mark.parametrize("entry", sorted(ENTRIES))
def test_every_bundle_entry_is_in_the_table(entry: str) -> None:
    """The table of entries is complete."""
    assert f"`{entry}`" in PAGE


@pytest.mark.parametrize(
    "member", [*messages.DeviceState, *messages.UpdatePhase, *messages.Severity, *messages.Stream], ids=str
)
def test_every_enum_member_is_named(member: str) -> None:
    """States, phases, severities and streams are all on the page."""
    assert re.search(rf"\b{member}\b", PAGE)


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_every_code_is_in_the_table(name: str) -> None:
    """Every code has an explanation."""
    code = getattr(errors, name).code
    assert code == "wire" or f"| `{code}` |" in PAGE


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    """Figures on the page don't drift from the code."""
    assert f"At most {MAX_REPORT_BYTES // 1024} KiB, 1 to {MAX_STREAMS} streams" in PAGE
    assert f"envelope at most {MAX_ENVELOPE_BYTES // 1024} KiB" in PAGE
    assert f"report at most {measurement.MAX_REPORT_BYTES // 1024**2} MiB" in PAGE
    assert f"rows at most {measurement.MAX_ROWS_BYTES // 1024**2} MiB" in PAGE
    assert f"holds for at most {measurement.MAX_ORDER_MS // 3_600_000} hours" in PAGE
    assert measurement.ORDER_TYPE in PAGE
