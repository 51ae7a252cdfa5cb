"""A private PostgreSQL from Debian, on a socket in a folder of its own, for benches and tests.

It listens on no port, trusts whoever reaches the socket, and is gone with the context. Its order of texts is that of
American English, not that of code points: an order on which the server depends shows there.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.store.database import connect

MISSING = "needs PostgreSQL (Debian: postgresql) and psycopg (tinyfleet[postgres])"
_ORDER = ("--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8", "--encoding=UTF8")
_SMALL = {"shared_buffers": "32MB", "max_connections": "40", "autovacuum": "off"}
_CARELESS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, None if they or the driver are not installed."""
    if importlib.util.find_spec("psycopg") is None:
        return None
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@contextmanager
def private_postgres(*, durable: bool = True) -> Iterator[str]:
    """Yield the URL of a private PostgreSQL; one that is not ``durable`` may lose everything in a crash of the host.

    Raises:
        FileNotFoundError: If PostgreSQL or its driver is not installed.
    """
    found = programs()
    if found is None:
        raise FileNotFoundError(MISSING)
    account = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="tinyfleet-pg-"))
    if account:
        os.chown(folder, pwd.getpwnam(account).pw_uid, -1)

    def run(name: str, *arguments: str) -> None:
        command = [str(found / name), "-D", str(folder / "data"), *arguments]
        subprocess.run(command, check=True, user=account, cwd=folder, stdout=subprocess.DEVNULL, timeout=60)

    try:
        run("initdb", "-A", "trust", "-U", "postgres", "--no-sync", *_ORDER)
        settings = _SMALL if durable else _SMALL | _CARELESS
        options = [f"-c listen_addresses='' -k {folder}", *(f"-c {name}={value}" for name, value in settings.items())]
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", " ".join(options), "start")
        yield f"postgresql://postgres@/postgres?host={folder}"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


_OTHERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"""
_NO_ROWS = """DO $$ DECLARE one record; BEGIN
SET LOCAL session_replication_role = 'replica';
FOR one IN SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public'
    AND tablename <> 'alembic_version' LOOP EXECUTE 'DELETE FROM ' || one.name; END LOOP;
PERFORM setval(quote_ident(sequencename)::regclass, 1, false) FROM pg_sequences WHERE schemaname = 'public';
END $$"""  # a DELETE of few rows takes a hundredth of a TRUNCATE, which makes new files


def empty(url: str) -> None:
    """Remove every table of a PostgreSQL database, and end the connections that others left open there."""
    _run(url, _OTHERS, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")


def clear(url: str) -> None:
    """Delete every row, begin every sequence anew, and end the connections that others left open there."""
    _run(url, _OTHERS, _NO_ROWS)


def _run(url: str, *statements: str) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
