"""Hardware in the loop as a pytest plug-in, entry point ``tinyfleet_hil``.

    pytest --hil-inventory lab.toml --hil-bundle build/digits-1-gateway.tfb --hil-report hil test_board.py

Fixtures: ``device`` (a ``DeviceUnderTest``; one test for each device of the inventory), ``bundle`` (a
``BundleUnderTest``; one for each ``--hil-bundle``), ``host`` (this machine, for comparison). The marker
``on("hardware:pi4")`` chooses devices by ``hardware``, ``name``, ``kind`` or ``runtime``; of several, one is enough.

Decides which tests run on which devices, and the exit code: a run in which no test ran on a device has tested nothing
and ends with 5, pytest's code for that. Without ``--hil-inventory`` it changes nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from compressor.devices.inventory import Entry, ShellEntry, kind_of, read_inventory
from compressor.errors import CannotError, CompressorError, InventoryError

_NOTHING_RAN = int(pytest.ExitCode.NO_TESTS_COLLECTED)
_DEVICE, _BUNDLE, _FIGURE = "device", "bundle", "measured_"
_MOST_TEXT = 400
_REPORTS = ("hil.json", "hil.html", "junit.xml")
_SELECTORS = ("hardware", "name", "kind", "runtime")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("tinyfleet_hil", "tests on devices")
    group.addoption("--hil-inventory", type=Path, metavar="FILE", help="TOML file that describes the devices")
    group.addoption(
        "--hil-bundle", type=Path, action="append", default=[], metavar="FILE", help="bundle to test; may be repeated"
    )
    group.addoption(
        "--hil-device", action="append", default=[], metavar="NAME", help="only this device; may be repeated"
    )
    group.addoption("--hil-probe", metavar="RECIPE", help="recipe whose gate split is answered on device and host")
    group.addoption("--hil-rows", type=int, default=200, metavar="N", help="at most so many rows of the probe [200]")
    group.addoption("--hil-report", type=Path, metavar="DIR", help="write hil.json, hil.html and junit.xml to DIR")
    group.addoption(
        "--hil-strict", action="store_true", help='a marker on("…") that no device fits is a failure, not a skip'
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and, with an inventory, the laboratory.

    Raises:
        UsageError: If the report can't be written, a bundle is not there, or the inventory can't be read or lacks a
            device that was named.
    """
    config.addinivalue_line(
        "markers", 'on("hardware:CLASS", …): run on devices of this hardware, name, kind or runtime'
    )
    path, report = config.getoption("hil_inventory"), config.getoption("hil_report")
    if path is None:
        return
    if report is not None and not hasattr(config, "workerinput"):
        _make_room(report)
    for bundle in config.getoption("hil_bundle"):
        if not bundle.is_file():
            raise pytest.UsageError(f"Expected a bundle at {bundle}, got no file: name one that compressor run made")
    if config.getoption("hil_rows") < 1:
        raise pytest.UsageError(f"Expected --hil-rows of at least 1, got {config.getoption('hil_rows')}")
    try:
        entries = read_inventory(path)
    except InventoryError as error:
        raise pytest.UsageError(str(error)) from error
    chosen = config.getoption("hil_device")
    unknown = [name for name in chosen if name not in entries]
    if unknown:
        raise pytest.UsageError(f"Expected --hil-device among {', '.join(entries)}, got {unknown[0]!r}")
    if report is not None and not config.option.xmlpath:
        config.option.xmlpath = str(report / "junit.xml")
    config.pluginmanager.register(
        _Laboratory(config=config, entries={name: entries[name] for name in chosen or entries}), "hil_lab"
    )


def _make_room(folder: Path) -> None:
    """Remove the reports of an earlier run from ``folder``: none may speak for a run that does not get to its end.

    Raises:
        UsageError: If the folder can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _REPORTS:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise pytest.UsageError(f"Expected a folder for the report at {folder}, got: {error}") from error


def _fits(selector: str, name: str, entry: Entry) -> bool:
    """Return whether a device fits ``KEY:VALUE`` of the marker.

    Raises:
        UsageError: If the key is unknown.
    """
    key, _, value = selector.partition(":")
    if key not in _SELECTORS or not value:
        raise pytest.UsageError(f'Expected on("KEY:VALUE") with a key of {", ".join(_SELECTORS)}, got {selector!r}')
    runtime = entry.runtime if isinstance(entry, ShellEntry) else ""
    return value == {"hardware": entry.hardware, "name": name, "kind": kind_of(entry), "runtime": runtime}[key]


class _Missing(str):
    """Why no device of the inventory fits; stands where its name would."""

    __slots__ = ()


@dataclass(eq=False, kw_only=True)
class _Laboratory:
    """The devices and bundles of one session, and what was measured; a plug-in itself while there is an inventory."""

    config: pytest.Config
    entries: Mapping[str, Entry]
    made: dict[str, object] = field(default_factory=dict)
    rows: list[dict[str, object]] = field(default_factory=list)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test for each device and bundle that it fits."""
        if "device" in metafunc.fixturenames:
            wanted = [selector for mark in metafunc.definition.iter_markers("on") for selector in mark.args]
            fit = {
                name: entry
                for name, entry in self.entries.items()
                if not wanted or any(_fits(selector, name, entry) for selector in wanted)
            }
            if fit:
                metafunc.parametrize("device", list(fit), ids=list(fit), indirect=True, scope="session")
            else:
                none = _Missing(f"no device {' or '.join(wanted)} in the inventory")
                metafunc.parametrize("device", [none], ids=["none"], indirect=True, scope="session")
        bundles = self.config.getoption("hil_bundle")
        if "bundle" in metafunc.fixturenames and bundles:
            ids = [path.name.removesuffix(".tfb") for path in bundles]
            metafunc.parametrize("bundle", bundles, ids=ids, indirect=True, scope="session")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Skip a test of something that the inventory gives no way to, and keep the figures of any other."""
        try:
            yield
        except CannotError as error:
            pytest.skip(str(error))
        finally:
            from compressor.devices.hil_report import figures_of  # noqa: PLC0415 - numpy only if there is a laboratory

            used = getattr(item, "funcargs", {})
            found = figures_of(used.get("device"), used.get("bundle"), used.get("host"))
            item.user_properties += [(f"{_FIGURE}{name}", value) for name, value in found.items()]

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Note the device and the bundle of a test, for all reports."""
        given = getattr(getattr(item, "callspec", None), "params", {})
        if "device" in given:
            name, bundle = given["device"], given.get("bundle")
            names = [path.name for path in self.config.getoption("hil_bundle")]
            shown = "" if bundle is None else bundle.name if names.count(bundle.name) == 1 else str(bundle)
            item.user_properties += [
                (_DEVICE, "" if isinstance(name, _Missing) else name),
                (_BUNDLE, shown),
            ]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the outcome of a test on a device; one that could not start has failed."""
        known = dict(report.user_properties)
        if _DEVICE not in known or report.when == "teardown" or (report.when == "setup" and report.passed):
            return
        told = report.longrepr
        lines = (told[2] if isinstance(told, tuple) else str(told or "")).splitlines()
        said = " ".join(line[1:].strip() for line in lines if line.startswith("E ")) or " ".join(lines[-1:])
        figures = {name.removeprefix(_FIGURE): value for name, value in known.items() if name.startswith(_FIGURE)}
        row = {"test": report.nodeid, "device": known[_DEVICE], "bundle": known[_BUNDLE], "outcome": report.outcome}
        self.rows.append({**row, "text": said[:_MOST_TEXT], "seconds": round(report.duration, 2), "figures": figures})

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the report; a session that tested nothing on a device has not passed."""
        if hasattr(self.config, "workerinput"):  # a worker of pytest-xdist: the controller has all results
            return
        ran = any(row["outcome"] in {"passed", "failed"} for row in self.rows)
        if exitstatus == pytest.ExitCode.OK and not ran:
            session.exitstatus = _NOTHING_RAN
        folder = self.config.getoption("hil_report")
        if folder is not None:
            from compressor.devices import hil_report  # noqa: PLC0415 - likewise

            hil_report.write(folder, self.entries, self.rows, int(session.exitstatus))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print where the report is."""
        folder = self.config.getoption("hil_report")
        if folder is not None:
            terminalreporter.write_line(f"hil: {folder / 'hil.html'}")


def _laboratory(request: pytest.FixtureRequest) -> _Laboratory:
    found = request.config.pluginmanager.get_plugin("hil_lab")
    if not isinstance(found, _Laboratory):
        pytest.skip("no inventory of devices: give --hil-inventory FILE")
    return found


def _one_line(said: object) -> str:
    """Return an error as one line: a report of a failure shows the last one, and a device's words may be several."""
    return " ".join(str(said).split())


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> object:
    """The device under test; a device that does not answer fails each of its tests."""
    from compressor.devices.under_test import under_test  # noqa: PLC0415 - likewise

    laboratory = _laboratory(request)
    name = request.param
    if isinstance(name, _Missing):
        if request.config.getoption("hil_strict"):
            pytest.fail(str(name), pytrace=False)
        pytest.skip(str(name))
    if name not in laboratory.made:
        try:
            made = under_test(name, laboratory.entries[name])
            made.bench.check(made.id)
            laboratory.made[name] = made
        except CompressorError as error:
            laboratory.made[name] = error
    if isinstance(found := laboratory.made[name], CompressorError):
        pytest.fail(_one_line(f"{name}: {found}"), pytrace=False)
    return found


@pytest.fixture(scope="session")
def bundle(request: pytest.FixtureRequest) -> object:
    """The bundle under test."""
    from compressor.devices.under_test import read_bundle_under_test  # noqa: PLC0415 - likewise

    _laboratory(request)
    path = getattr(request, "param", None)
    if path is None:
        pytest.skip("no bundle: give --hil-bundle FILE")
    try:
        probe = request.config.getoption("hil_probe")
        return read_bundle_under_test(path, probe, most=request.config.getoption("hil_rows"))
    except CompressorError as error:
        failure = error
    pytest.fail(_one_line(failure), pytrace=False)


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> object:
    """This machine, measured as a device is."""
    from compressor.devices.inventory import LocalEntry  # noqa: PLC0415 - likewise
    from compressor.devices.shell import this_host  # noqa: PLC0415 - likewise
    from compressor.devices.under_test import DeviceUnderTest  # noqa: PLC0415 - likewise

    _laboratory(request)
    return DeviceUnderTest(name="host", entry=LocalEntry(), bench=this_host())
