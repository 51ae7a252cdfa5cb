"""Opening the database: an unusable one is reported in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from server.app.state_directory import StateDirectory
from server.cli import main
from server.errors import DatabaseRefusedError, DatabaseUnavailableError, DiskFullError, ValueRefusedError
from server.store.database import connect, open_database, shown_url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+nodriver://u:geheim@h/d", r"got 'postgresql\+nodriver://u:\*\*\*@h/d'"),
        ("postgresql+pg8000://u:geheim@h/d", r"got: .*pg8000.*: install it"),
        ("mysql+pymysql://u:geheim@h/d", "Expected"),
        ("fleet.db", "Expected a database URL"),
        ("postgresql://u:geheim@h:port/d", "Expected a database URL"),
    ],
)
def test_a_url_that_can_not_be_used_is_named_without_its_password(url: str, said: str) -> None:
    """Unknown kinds, missing drivers and typing errors."""
    with pytest.raises(DatabaseUnavailableError, match=said) as refused:
        connect(url)
    assert "geheim" not in str(refused.value)


def test_a_plain_postgresql_url_means_the_driver_that_we_name() -> None:
    """SQLAlchemy's own default has been another package."""
    pytest.importorskip("psycopg")
    assert connect("postgresql://u@h/d").url.drivername == "postgresql+psycopg"


@pytest.mark.parametrize("command", [["run"], ["devices"], ["migrate", "--yes"]])
def test_a_missing_driver_is_one_line_on_the_terminal(state: StateDirectory, command: list[str]) -> None:
    """No traceback of sixty lines."""
    state.config.write_text('[store]\nurl = "postgresql+pg8000://u@h/d"\n', encoding="utf-8")
    result = CliRunner().invoke(main, [command[0], str(state.path), *command[1:]])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("error [database_unavailable]: Expected the driver of postgresql+pg8000://u@h/d")


def test_a_url_is_shown_without_its_password(tmp_path: Path) -> None:
    """Also one that can't be parsed."""
    assert shown_url("postgresql://u:p@h/d") == "postgresql://u:***@h/d"
    assert shown_url("p:w@h") == "h"
    assert shown_url(f"sqlite:///{tmp_path}") == f"sqlite:///{tmp_path}"


def test_a_value_that_no_database_holds_is_refused_as_the_callers(empty_url: str) -> None:
    """An integer beyond 64 bits; PostgreSQL also takes no NUL in a text."""
    database = open_database(empty_url)
    odd = [("SELECT device FROM devices WHERE enrolled_ms = :odd", 10**20)]
    if empty_url.startswith("postgresql"):
        odd = [("SELECT device FROM devices WHERE site = :odd", "a\0b")]
    for query, value in odd:
        with pytest.raises(ValueRefusedError, match="Expected"), database.begin() as connection:
            connection.execute(sa.text(query), {"odd": value})
    database.close()


def test_a_database_that_is_locked_or_gone_is_no_fault_of_ours(tmp_path: Path) -> None:
    """The caller may ask again."""
    database = open_database(f"sqlite:///{tmp_path / 'fleet.db'}")
    with pytest.raises(DatabaseRefusedError, match="no such table: gone"), database.begin() as connection:
        connection.execute(sa.text("SELECT 1 FROM gone"))
    assert (DatabaseRefusedError.status, DiskFullError.status, ValueRefusedError.status) == (503, 507, 422)
    database.close()
