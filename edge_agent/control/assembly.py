"""Builds an agent with its real parts from its identity and configuration."""

from __future__ import annotations

import os
import queue
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.config import AgentConfig, HookConfig
from edge_agent.control.agent import Agent, AgentParts, Notices
from edge_agent.control.renewal import Renewal, ServerRenewer
from edge_agent.control.supervisor import ProcessLauncher
from edge_agent.device import hardware
from edge_agent.device.certificate import own_certificate
from edge_agent.device.clock import SystemClock
from edge_agent.device.disk import Disk, RealDisk
from edge_agent.device.identity import Identity
from edge_agent.device.notify import from_environment
from edge_agent.device.tls import OwnCertificate
from edge_agent.telemetry.byte_meter import ByteMeter
from edge_agent.telemetry.rows import new_boot
from edge_agent.transports.mqtt import MqttSettings, MqttTransport
from edge_agent.updater.children import ChildProber, ChildVerifier
from edge_agent.updater.download import FetchSettings, HttpFetcher
from edge_agent.updater.ports import FetchProgress, SwitchHook, ThreadWorker
from edge_agent.updater.storage.imported import FOLDER as IMPORT
from edge_agent.updater.storage.imported import StagedFetcher
from edge_agent.updater.transfer.chunk_pull import ChunkLink
from edge_agent.updater.transfer.patched_download import PatchedFetcher
from edge_agent.updater.updater import UpdatePorts
from wire.canonical import canonical_bytes
from wire.codec import Json
from wire.settings import given_of
from wire.software import SoftwareList
from wire.stick import METADATA
from wire.transport import Transport

BENCHMARK_S = 3.0


def build_agent(
    identity: Identity,
    config: AgentConfig,
    state: Path,
    *,
    runtimes: tuple[str, ...],
    transport: Transport | None = None,
    software: SoftwareList | None = None,
) -> Agent:
    """Return an agent with real children, disk and clock, and with MQTT unless another ``transport`` is given.

    ``config``: with a source that is ``placed``. ``runtimes``: those that are installed (``hardware.runtimes``).
    ``software``: what is installed (``software.installed``); None: it isn't reported.

    Raises:
        CertificateError: If the device has a certificate, and it or its key can't be read.
        SpoolError: If the spool can't be opened.
    """
    notices: Notices = queue.SimpleQueue()
    disk, own, meter = RealDisk(), own_certificate(state) if identity.certified else None, ByteMeter()
    fetching, blobs = _fetch_settings(identity, config, own, meter), state / "blobs" / "sha256"
    chunks = ChunkLink(notices.put)
    ports = UpdatePorts(
        verifier=ChildVerifier(state, config.update.verify_deadline_s, meter),
        fetcher=PatchedFetcher(
            HttpFetcher(fetching, blobs, disk, chunks=chunks, carriers=config.update.carriers), blobs, disk
        ),
        prober=ChildProber(config.update.probe_deadline_s, config.child.max_memory_bytes),
        worker=ThreadWorker(notices.put),
        hardware=config.device.hardware or hardware.hardware_class(),
        runtimes=runtimes,
        hook=_hook(config.hooks) if config.hooks.before_switch else None,
        ask_again_s=config.hooks.ask_again_s,
        import_verifier=ChildVerifier(state, config.update.verify_deadline_s, metadata=state / IMPORT / METADATA),
        import_fetcher=StagedFetcher(state, blobs, disk),
    )
    connection = transport or MqttTransport(replace(mqtt_settings(identity, config, own), meter=meter))
    renewal = None
    if own is not None:
        chance = random.random()  # noqa: S311 - spreads renewals of a fleet, no secret
        renewal = Renewal(renewer=ServerRenewer(fetching, own, disk), worker=ports.worker, chance=chance)
    boot = new_boot()
    launch = ProcessLauncher(child_arguments(config, state, boot, identity))
    parts = AgentParts(
        clock=SystemClock(),
        transport=connection,
        launch=launch,
        disk=disk,
        ports=ports,
        notices=notices,
        chunks=chunks,
        measurer=_Measurer(state=state, settings=fetching, disk=disk, config=config),
        notifier=from_environment(os.environ),
        renewal=renewal,
        benchmarker=ChildProber(
            config.update.probe_deadline_s, config.child.max_memory_bytes, least_s=BENCHMARK_S, gently=True
        ),
        meter=meter,
        software=software,
    )
    return Agent(identity, config, state, boot, parts)


def _hook(hooks: HookConfig) -> SwitchHook:
    from edge_agent.updater.hook import ProgramHook  # noqa: PLC0415 - few devices have one

    return ProgramHook(hooks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measurer:
    """The measurer of a real device; its code is imported for a measurement, 0.2 MB that most devices never need."""

    state: Path
    settings: FetchSettings
    disk: Disk
    config: AgentConfig

    def start(self, envelope: bytes, progress: FetchProgress, done: Callable[[object], None]) -> None:
        """Run it in the background."""
        from edge_agent.measuring.job import JobLimits, ProcessMeasurer  # noqa: PLC0415 - see above

        measure, update = self.config.measure, self.config.update
        limits = JobLimits(
            max_bytes=measure.max_bytes,
            limit_s=measure.limit_s,
            reserve_bytes=update.reserve_bytes,
            max_bytes_per_s=update.max_bytes_per_s,
        )
        ProcessMeasurer(
            state=self.state, settings=self.settings, disk=self.disk, limits=limits, energy=measure.energy
        ).start(envelope, progress, done)


def child_arguments(
    config: AgentConfig, state: Path | None = None, boot: str = "", identity: Identity | None = None
) -> tuple[str, ...]:
    """Return the inference child's arguments besides the bundle; in ``state`` it marks the input in flight.

    ``boot`` identifies the agent's start: an input marked under another start is tried once more. ``identity``: of the
    device, named in answers.
    """
    monitor = config.monitor
    documents: dict[str, Json] = {name: sink.document for name, sink in config.sinks.items()}
    return (
        "--source", canonical_bytes(config.source.document).decode(),
        *(("--sinks", canonical_bytes(documents).decode()) if documents else ()),
        *(("--api", canonical_bytes(given_of(config.api)).decode()) if config.api.on else ()),
        *(("--corrections",) if config.api.on and config.samples.max_bytes_per_day else ()),
        *(() if identity is None else ("--device", identity.device, "--site", identity.site)),
        "--window-ms", str(round(monitor.window_s * 1000)),
        "--beat-s", str(config.child.beat_s),
        "--checkpoint-s", str(monitor.checkpoint_s),
        "--context", str(monitor.context),
        "--memory-bytes", str(config.child.max_memory_bytes),
        *(() if state is None else ("--state", str(state.absolute()), "--run", boot)),
    )  # fmt: skip


def mqtt_settings(identity: Identity, config: AgentConfig, own: OwnCertificate | None = None) -> MqttSettings:
    """Return the broker's address, the credentials, and limits; ``own``: the device's certificate, if it has one."""
    return MqttSettings(
        host=identity.mqtt_host,
        port=identity.mqtt_port,
        client_id=identity.device,
        username=identity.device,
        password=identity.password,
        tls_ca=identity.mqtt_tls_ca,
        own=own,
        pace=config.transport,
    )


def _fetch_settings(
    identity: Identity, config: AgentConfig, own: OwnCertificate | None, meter: ByteMeter
) -> FetchSettings:
    update = config.update
    return FetchSettings(
        base_url=identity.http_url,
        username=identity.device,
        password=identity.password,
        tls_ca=identity.mqtt_tls_ca,
        own=own,
        stall_s=update.stall_s,
        attempts=update.download_attempts,
        retry_min_s=update.retry_min_s,
        retry_max_s=update.retry_max_s,
        meter=meter,
    )
