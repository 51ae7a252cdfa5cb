"""agent.toml: strict keys, typed values, paths beside the file."""

from pathlib import Path

import pytest

from edge_agent import config, sinks
from edge_agent.config import AgentConfig, read_config
from edge_agent.errors import AgentConfigError
from wire.settings import MAX_TOML_BYTES


def config_of(tmp_path: Path, text: str) -> AgentConfig:
    """Read a configuration of this text."""
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return read_config(path)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    """Everything has a default."""
    assert config_of(tmp_path, "").monitor == AgentConfig().monitor


def test_paths_are_beside_the_file(tmp_path: Path) -> None:
    """A relative source does not depend on where the agent was started."""
    assert config_of(tmp_path, '[source]\npath = "inbox"\n').source.keys["path"] == str(tmp_path / "inbox")


def test_a_tilde_in_the_path_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not a folder of that name, which the source would make."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert config_of(tmp_path, '[source]\npath = "~/pics"\n').source.keys["path"] == str(tmp_path / "home" / "pics")
    with pytest.raises(AgentConfigError, match=r"\[source\] path: Expected a home directory for ~nobody-here"):
        config_of(tmp_path, '[source]\npath = "~nobody-here/pics"\n')


def test_reads_attributes_and_whole_numbers_for_seconds(tmp_path: Path) -> None:
    """Tables of text and integers where seconds are meant."""
    config = config_of(tmp_path, '[device]\nattributes = {lens = "a"}\n[monitor]\nwindow_s = 5\n')
    assert (config.device.attributes, config.monitor.window_s) == ({"lens": "a"}, 5.0)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[spol]", "did you mean 'spool'"),
        ("[monitor]\nwindow = 5", "did you mean 'window_s'"),
        ("[monitor]\nwindow_s = '5'", r"\[monitor\] window_s to be a number, got str '5'"),
        ("[monitor]\nwindow_s = -1", "window_s between 0.001 and 31622400, got -1"),
        ("[monitor]\nwindow_s = nan", "window_s between 0.001 and 31622400, got nan"),
        ("[source]\nsettle_s = 1e300", "settle_s between 0 and 31622400, got 1e.300"),
        ("[spool]\nlimit_bytes = 9007199254740993", "limit_bytes between 65536 and 9007199254740992"),
        ("[device]\nattributes = {lens = 5}", "lens to be text, got int 5"),
        ("spool = 5", r"\[spool\] to be a table, got int 5"),
        ('[source]\npath = "\\u0000"', r"\[source\] path: Expected a path without a NUL character"),
        ("[spool", "Expected TOML"),
    ],
)
def test_refuses_with_the_key_named(tmp_path: Path, text: str, wanted: str) -> None:
    """Every mistake names its key."""
    with pytest.raises(AgentConfigError, match=wanted):
        config_of(tmp_path, text)


@pytest.mark.parametrize(
    ("table", "good", "bad"),
    [
        ("transport", "keepalive_s = 65535", "keepalive_s = 65536"),
        ("transport", "keepalive_s = 5", "keepalive_s = 4"),
        ("transport", "inflight_messages = 1", "inflight_messages = 0"),
        ("transport", "inflight_messages = 65535", "inflight_messages = 65536"),
        ("transport", "min_backoff_s = 300", "min_backoff_s = 301"),
        ("monitor", "window_s = 0.001", "window_s = 0"),
        ("monitor", "rows_a_batch = 1", "rows_a_batch = 0"),
        ("monitor", "context = 65535", "context = 99999999999"),
        ("spool", "limit_bytes = 65536", "limit_bytes = 0"),
        ("update", "max_boots = 1", "max_boots = 0"),
        ("update", "max_error_ratio = 1", "max_error_ratio = 1.5"),
        ("child", "hang_s = 1", "hang_s = 0"),
        ("child", "beat_s = 20", "beat_s = 21"),
        ("source", "backlog = 1", "backlog = 0"),
        ("source", 'kind = "synthetic"', 'kind = ""'),
        ("source", 'kind = "directory"', 'kind = "../x"'),
        ("source", 'suffixes = ".png .dat"', 'suffixes = "png"'),
    ],
)
def test_refuses_what_no_device_could_obey(tmp_path: Path, table: str, good: str, bad: str) -> None:
    """Both sides of a bound; the message names table, key and value."""
    config_of(tmp_path, f"[{table}]\n{good}\n")
    key, value = bad.split(" = ")
    with pytest.raises(AgentConfigError, match=rf"\[{table}\].* {key} .*got .?{value.strip(chr(34))}"):
        config_of(tmp_path, f"[{table}]\n{bad}\n")


def test_a_missing_file_is_a_coded_error(tmp_path: Path) -> None:
    """No traceback for a path that isn't there."""
    with pytest.raises(AgentConfigError, match="No such file"):
        read_config(tmp_path / "none.toml")


def test_a_file_beyond_the_limit_is_refused_not_cut(tmp_path: Path) -> None:
    """Otherwise a key at the end would silently be ignored; a file at the limit is read completely."""
    end = b'\n[source]\nkind = "synthetic"\n'
    path = tmp_path / "agent.toml"
    path.write_bytes(b"#" * (MAX_TOML_BYTES - len(end)) + end)
    assert read_config(path).source.kind == "synthetic"
    path.write_bytes(b"#" * (MAX_TOML_BYTES - len(end) + 1) + end)
    with pytest.raises(AgentConfigError, match=f"at most {MAX_TOML_BYTES} bytes in .*agent.toml"):
        read_config(path)


@pytest.mark.parametrize("name", ["my log", "a/b", "", "Log", "x" * 64])
def test_a_name_of_a_sink_that_can_not_be_in_a_topic_is_refused(name: str, tmp_path: Path) -> None:
    """The name is also that of a file and of a level of a topic."""
    path = tmp_path / "agent.toml"
    path.write_text(f'[sinks."{name}"]\nkind = "jsonl"\n')
    with pytest.raises(AgentConfigError, match="a name of a sink of 1 to 63 characters"):
        read_config(path)


def test_two_sinks_need_two_paths(tmp_path: Path) -> None:
    """Two writers of one file would rotate and cut each other's lines."""
    path = tmp_path / "agent.toml"
    path.write_text('[sinks.a]\nkind = "jsonl"\npath = "x.jsonl"\n[sinks.b]\nkind = "jsonl"\npath = "./x.jsonl"\n')
    with pytest.raises(AgentConfigError, match=r"\[sinks.b\] path of its own, got that of \[sinks.a\]"):
        read_config(path)


def test_two_sinks_at_one_broker_need_two_topics(tmp_path: Path) -> None:
    """Both default topics are the same one; another broker or topic is another place."""
    path = tmp_path / "agent.toml"
    text = '[sinks.a]\nkind = "mqtt"\n[sinks.b]\nkind = "mqtt"\n'
    for more in ('host = "other"\n', 'topic = "mine"\n', "port = 1884\n"):
        path.write_text(text + more)
        assert set(read_config(path).sinks) == {"a", "b"}
    path.write_text(text)
    with pytest.raises(
        AgentConfigError, match=r"\[sinks.b\] a topic of its own at its broker, got that of \[sinks.a\]"
    ):
        read_config(path)


def test_what_a_new_device_gets_is_right_without_its_comment_signs(tmp_path: Path) -> None:
    """Its sink of answers has a place that it may use."""
    lines = (Path(config.__file__).parent / "device" / "agent.toml").read_text().splitlines()[1:]
    path = tmp_path / "agent.toml"
    path.write_text("\n".join(line.removeprefix("# ") for line in lines))
    found = read_config(path)
    state = tmp_path / "state"
    (state / "answers").mkdir(parents=True)
    sink, _ = sinks.load(found.sinks["file"].document, sinks.SinkSurroundings(name="file", state=state))
    sink.close()
    assert found.source.keys["path"] == "/srv/pictures"


@pytest.mark.parametrize("command", ['["idle"]', '["/bin/idle", "\\u0000"]'])
def test_a_hook_is_an_absolute_path(tmp_path: Path, command: str) -> None:
    """Without a shell there is no search for it; the error shows how."""
    with pytest.raises(AgentConfigError, match=r'before_switch = \["/usr/local/bin/idle"\]'):
        config_of(tmp_path, f"[hooks]\nbefore_switch = {command}\n")
    assert config_of(tmp_path, '[hooks]\nbefore_switch = ["/bin/true"]\n').hooks.before_switch == ("/bin/true",)
