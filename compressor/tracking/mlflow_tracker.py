"""MLflow: a tracking server, or a database of its own layout. The only file that imports mlflow.

``mlflow-skinny`` is enough. Decides how long a server may take and what is never shown: messages contain no passwords
or tokens. User names, passwords and tokens for a server come from MLflow's own environment variables.
"""

from __future__ import annotations

import base64
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from compressor.errors import PluginError, TrackingError, TrackingUnreachableError
from compressor.tracking.tracker import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
_USER, _SECRETS = "MLFLOW_TRACKING_USERNAME", ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # MLflow's own default of 7 delays a finished run by four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds; MLflow's default is 120
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is sent except to the given address
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for our results
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_INSTALL = "python -m pip install 'mlflow-skinny>=3'"
_BATCH, _MAX_SAID = 100, 300  # Source: MLflow's REST API, log-batch: at most 100 parameters and 100 tags a call
_REFUSED = range(400, 500)
_BUSY = (408, 429)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class MlflowTracker:
    """MLflow at ``uri``: ``http(s)://…`` of a tracking server, or ``sqlite:///FILE`` and other databases.

    Artifacts of a new experiment in an SQLite file are in ``mlartifacts`` beside it; a server decides for itself.
    """

    uri: str

    def check(self) -> None:
        """Check that MLflow answers; a missing database is created.

        Raises:
            PluginError: If mlflow, or what it needs for this address, is not installed.
            TrackingError: If the address is wrong, or the server denies access.
            TrackingUnreachableError: If the server does not answer.
        """
        with _wrapped(self.uri):
            _client(self.uri).search_experiments(max_results=1)

    def log(self, record: Record) -> str:
        """Log ``record`` as one run and return its location; an incomplete run is marked as failed.

        Raises:
            PluginError: If mlflow, or what it needs for this address, is not installed.
            TrackingError: If it was not logged completely; ``TrackingUnreachableError`` if a server did not answer.
        """
        with _wrapped(self.uri):
            client = _client(self.uri)
            known = client.get_experiment_by_name(record.experiment)
            if known is not None:
                experiment = str(known.experiment_id)
            else:
                beside = None
                if self.uri.startswith("sqlite:///"):
                    beside = (Path(self.uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()
                experiment = str(client.create_experiment(record.experiment, artifact_location=beside))
            run = client.create_run(experiment, run_name=record.name).info.run_id
            try:
                _fill(client, run, record)
                client.set_terminated(run, "FINISHED")
            except BaseException:
                with suppress(Exception):  # the first error is the one to report
                    client.set_terminated(run, "FAILED")
                raise
        if _is_server(self.uri):
            return f"{redacted(self.uri).rstrip('/')}/#/experiments/{experiment}/runs/{run}"
        return f"{redacted(self.uri)} run {run}"


def tracker_at(asked: str, environment: Mapping[str, str]) -> MlflowTracker:
    """Return the tracker at ``asked``, or if that is empty at MLFLOW_TRACKING_URI of ``environment``.

    Raises:
        TrackingError: If neither names an address, or ``asked`` contains a password: others can see command lines.
    """
    uri = asked or environment.get(URI_VARIABLE, "")
    if not uri:
        message = f"Expected --mlflow URI or the environment variable {URI_VARIABLE}, got neither: name the server"
        raise TrackingError(message)
    if redacted(asked) != asked:
        message = f"Expected --mlflow without a password, got one in {redacted(asked)}: others see command lines"
        raise TrackingError(f"{message}; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or {URI_VARIABLE}")
    return MlflowTracker(uri)


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return ``text`` without passwords in URLs and without the secrets of ``environment``.

    Also removes the HTTP Basic encoding of user and password, in case a server repeats it. Source: RFC 7617, section 2.
    """
    secrets = [environment.get(name, "") for name in _SECRETS]
    pair = f"{environment.get(_USER, '')}:{secrets[-1]}"
    for secret in [*secrets, base64.b64encode(pair.encode()).decode() if secrets[-1] else ""]:
        if secret:
            text = text.replace(secret, "***")
    return re.sub(r"(://[^/@\s:]*):[^/@\s]*@", r"\1:***@", text)


def _is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in {"http", "https"}


def _client(uri: str) -> MlflowClient:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # noqa: PLC0415 - optional, and 1.5 seconds of importing

    return MlflowClient(tracking_uri=uri)


def _fill(client: MlflowClient, run: str, record: Record) -> None:
    from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - optional

    now_ms = int(time.time() * 1000)
    tags = {**record.tags, "mlflow.note.content": record.note, "mlflow.source.name": "compressor run"}
    for some in _chunks(record.parameters):
        client.log_batch(run, params=[Param(*item) for item in some])
    for some in _chunks(tags):
        client.log_batch(run, tags=[RunTag(*item) for item in some])
    for measured in _chunks(record.metrics):
        client.log_batch(run, metrics=[Metric(name, value, now_ms, 0) for name, value in measured])
    with tempfile.TemporaryDirectory(prefix="tinyfleet-mlflow-") as folder:
        for name, data in record.artifacts.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        client.log_artifacts(run, folder)


def _chunks(values: Mapping[str, V]) -> Iterator[list[tuple[str, V]]]:
    items = iter(values.items())
    while some := list(islice(items, _BATCH)):
        yield some


@contextmanager
def _wrapped(uri: str) -> Iterator[None]:
    """Convert errors of MLflow and the libraries below it into ours."""
    try:
        yield
    except ImportError as error:
        package = error.name or "mlflow"
        install = _INSTALL if package == "mlflow" else f"python -m pip install {package}"
        message = (
            f"Expected the package {package!r} to log to {redacted(uri)}, got: it is not installed: run `{install}`"
        )
        raise PluginError(message) from error
    except Exception as error:
        first = _first(error)
        said = shorten(redacted(str(first)), _MAX_SAID, placeholder=" …")
        message = f"Expected MLflow at {redacted(uri)} to take the run, got {type(first).__name__}: {said}"
        status = getattr(error, "get_http_status_code", lambda: 0)()
        refused = status in _REFUSED and status not in _BUSY  # a retry would get the same answer
        if _is_server(uri) and not refused:
            raise TrackingUnreachableError(f"{message}: start it, or look at address and network") from error
        raise TrackingError(f"{message}: look at the address and at what you may do there") from error


def _first(error: BaseException) -> BaseException:
    """Return the root cause of ``error``: "connection refused" says more than the retries above it."""
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
