"""Which modules may import which, checked statically and in fresh interpreters."""

import os
import pkgutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import wire
from edge_agent import sinks, sources
from edge_agent.control.late import PUT_OFF

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "onnx", "onnxscript", "numpy", "PIL", "pydantic", "fastapi", "sqlalchemy", "nicegui"}
DEVICE_FORBIDS = HEAVY | {"onnxruntime", "cryptography", "server", "compressor"}
SERVER_FORBIDS = {"torch", "torchvision", "onnx", "onnxruntime", "PIL", "compressor", "edge_agent"}


def loaded_by(module: str) -> set[str]:
    """Return the top-level packages that are loaded in a fresh interpreter after importing ``module``."""
    program = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "module",
    [
        "control.agent",
        "cli",
        "config",
        "telemetry.spool",
        "control.supervisor",
        "telemetry.rows",
        "transports.mqtt",
        "updater.updater",
    ],
)
def test_the_control_process_stays_small(module: str) -> None:
    """The agent's control process never loads numpy, a runtime, or a framework."""
    assert loaded_by(f"edge_agent.{module}") & DEVICE_FORBIDS == set()


NOT_IN_CONTROL = {
    "argparse", "asyncio", "bz2", "click", "ctypes", "decimal", "difflib", "email", "gettext", "importlib.metadata",
    "lzma", "multiprocessing", "pkgutil", "tempfile", "tomllib", "xml", "zoneinfo",
    "edge_agent.declarations", "edge_agent.measuring.job", "edge_agent.outside", "edge_agent.sinks",
    "edge_agent.sources", "edge_agent.updater.hook", "wire.measurement",
}  # fmt: skip
TURNS = """
import sys
from edge_agent.control.late import PUT_OFF, put_off, put_off_still
put_off()
from pathlib import Path
from edge_agent.config import AgentConfig, config_from, document_of
from edge_agent.control import process
from edge_agent.control.agent import run
from edge_agent.control.assembly import build_agent
from edge_agent.device.identity import Identity
from wire.memory_broker import MemoryBroker, MemoryTransport
config, identity = config_from(document_of(AgentConfig())), Identity(site="site", device="dev")
transport = MemoryTransport(broker=MemoryBroker(), client_id="dev")
agent = build_agent(identity, config, Path(sys.argv[1]), runtimes=("onnx",), transport=transport)
turns = iter(range(5))
run(agent, lambda: next(turns, None) is None)
print(*sorted(sys.modules.keys() - put_off_still()))
"""


def test_a_running_control_process_has_imported_nothing_that_it_seldom_needs(tmp_path: Path) -> None:
    """After the first turns of an agent: modules by name, because each of them costs every device private memory."""
    places = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    command = [sys.executable, "-S", "-c", TURNS, str(tmp_path)]  # -S: a checkout's own finder imports some
    environment = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & (NOT_IN_CONTROL | set(PUT_OFF)) == set()


@pytest.mark.parametrize("module", [f"{one.__name__}.{name}" for one in (sources, sinks) for name in one.names()])
def test_a_source_or_sink_loads_the_standard_library_only(module: str) -> None:
    """The control process imports them to check their settings."""
    assert loaded_by(module) <= sys.stdlib_module_names | {"edge_agent", "wire"}


@pytest.mark.parametrize(
    "module",
    ["inference.child", "inference.probe", "inference.drift_counters", "inference.preprocess", "runtimes", "api"],
)
def test_the_inference_child_knows_no_framework(module: str) -> None:
    """numpy, PIL and a runtime are enough to infer."""
    allowed = {"numpy", "PIL", "onnxruntime"}
    assert loaded_by(f"edge_agent.{module}") & (DEVICE_FORBIDS - allowed) == set()


def test_the_server_loads_no_model_code() -> None:
    """The server can't train, export or run a model."""
    assert loaded_by("server.app.server") & SERVER_FORBIDS == set()


def test_the_client_of_the_server_loads_no_server() -> None:
    """A notebook that asks a server needs neither its framework nor its database."""
    assert loaded_by("server.client") & (HEAVY | {"uvicorn", "edge_agent", "compressor"}) == set()


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(wire.__path__, "wire.")])
def test_the_contract_needs_the_standard_library_only(name: str) -> None:
    """Every module of ``wire`` can run on the barest device."""
    assert loaded_by(name) <= sys.stdlib_module_names | {"wire"}


def test_import_contracts_hold() -> None:
    """The contracts in pyproject.toml, read by import-linter."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
