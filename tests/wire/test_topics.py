"""Which topics exist, and which names may be part of one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import NameRefusedError, TopicError, WireError
from wire.memory_broker import matches
from wire.topics import WITH_LEAF, Kind, Topic, check_name, device_filter, fleet_filter, parse_topic

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)


@given(site=NAMES, device=NAMES, kind=st.sampled_from(Kind), leaf=NAMES)
def test_parsing_is_the_inverse_of_writing(site: str, device: str, kind: Kind, leaf: str) -> None:
    """Every topic we can build is read back as the same topic."""
    topic = Topic(site=site, device=device, kind=kind, leaf=leaf if kind in WITH_LEAF else "")
    assert parse_topic(str(topic)) == topic


@given(st.text(max_size=80))
def test_any_text_is_a_topic_or_a_coded_error(text: str) -> None:
    """Garbage never raises anything else."""
    try:
        assert str(parse_topic(text)) == text
    except WireError as error:
        assert error.code == "topic_unknown"  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tf",
        "tf/1/site/device",
        "tf/2/site/device/state",
        "tf/1/site/device/unknown",
        "tf/1/site/device/state/leaf",
        "tf/1/site/device/tele",
        "tf/1/site/device/tele/",
        "tf/1/site/device/tele/a/b",
        "tf/1//device/state",
        "tf/1/site/+/state",
        "tf/1/site/#",
        "tf/1/Site/device/state",
        "tf/1/../device/state",
        "tf/1/site/device/state\n",
        "/tf/1/site/device/state",
    ],
)
def test_refuses_topics_that_are_not_ours(text: str) -> None:
    """Unknown kinds, missing or extra levels, wildcards and foreign names."""
    with pytest.raises(TopicError):
        parse_topic(text)


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a/b", "a+", "#", "..", "ä", "a" * 64, "a\n", "$sys"])
def test_refuses_names_that_topics_or_paths_can_t_carry(name: str) -> None:
    """A name is 1 to 63 of a-z 0-9 _ - and starts with a letter or digit."""
    with pytest.raises(NameRefusedError, match="Expected a device"):
        check_name(name, "a device")


@pytest.mark.parametrize("kind", Kind)
def test_filters_match_the_topics_of_their_kind_only(kind: Kind) -> None:
    """The server's filter and the device's filter both catch the topic, and no other kind's."""
    topic = str(Topic(site="site", device="device", kind=kind, leaf="leaf" if kind in WITH_LEAF else ""))
    for other in Kind:
        assert matches(fleet_filter(other), topic) is (other is kind)
        assert matches(device_filter("site", "device", other), topic) is (other is kind)
    assert not matches(device_filter("site", "another", kind), topic)
