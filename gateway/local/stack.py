"""
A local run from its first check to its last process: `tailor up`.

Decides the order: directory, ports, base, engine, keys and files, Valkey, Triton, gateway, demo profiles, summary, then
waiting. Does not know how a process is kept (supervisor.py) or how a profile is registered (`register`, handed in).
"""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import msgspec
from rich.console import Console

from gateway.local import triton
from gateway.local.bases import BASES, BaseName, LocalBase
from gateway.local.config_file import Addresses, Keys, write_config, write_env
from gateway.local.demo import DemoProfile, demo_profiles
from gateway.local.errors import LocalRunError
from gateway.local.layout import RunDirectory, write_private
from gateway.local.ports import Ports, holder, is_free
from gateway.local.processes import descendants, resident_bytes
from gateway.local.services import gateway_service, triton_service, valkey_service, visible_models
from gateway.local.summary import Ready, RunningService, print_ready, print_summary
from gateway.local.supervisor import Supervisor
from gateway.local.threads import thread_settings

_GRACE_S = 15.0
_VISIBLE_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    `port` moves the gateway alone, `port_offset` everything. `engine`: further options of build.reference_engine.
    """

    base: BaseName
    run_directory: Path
    port: int | None
    port_offset: int
    workers: int
    demo: bool = True
    as_json: bool = False
    engine: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminAccess:
    """What registers a profile needs to know."""

    url: str
    key: str


Register = Callable[[AdminAccess, DemoProfile], bool]
"""Register one demo profile; whether it is new here."""


def run_stack(options: Options, register: Register, console: Console) -> None:
    """
    Start everything, stay until asked to stop, stop everything.

    Raises:
        StopAsked: a signal ended the run; everything has been stopped.
        ServiceDied: a service ended by itself; everything else has been stopped.
        LocalRunError: it could not start; everything has been stopped.
    """
    began = time.monotonic()
    ports = ports_of(options)
    run = RunDirectory(options.run_directory.resolve())
    run.create()
    prefix = triton.shared_memory_prefix(ports)
    with run.held() as lock:
        require_free(ports)
        triton.remove_shared_memory(prefix)
        supervisor = Supervisor(grace_s=_GRACE_S, shared_memory_prefix=prefix, lock=lock)
        try:
            with supervisor:
                start = _Start(options, BASES[options.base], ports, run, supervisor, console)
                try:
                    start.prepare()
                    services = start.services()
                    profiles = start.register(register) if options.demo else []
                    start.tell(services, profiles, ready_s=time.monotonic() - began)
                    supervisor.watch()
                finally:
                    for told in (run.env, run.ready):  # the keys die with the run
                        told.unlink(missing_ok=True)
                    console.print("[dim]stopping …[/]")
        finally:
            for name in supervisor.made_to_end:
                console.print(f"[yellow]{name} did not end when asked and was killed[/]; its log: {run.log(name)}")


class _Start:
    """The steps of one start; each prints a line with what it took."""

    def __init__(
        self,
        options: Options,
        base: LocalBase,
        ports: Ports,
        run: RunDirectory,
        supervisor: Supervisor,
        console: Console,
    ) -> None:
        self._options = options
        self._base = base
        self._ports = ports
        self._run = run
        self._supervisor = supervisor
        self._console = console
        self._keys = Keys.fresh()
        self._addresses = Addresses.of(ports)

    def prepare(self) -> None:
        """
        Make the base model where it is absent, and its engine directory.

        Raises:
            LocalRunError: one of them cannot be made.
        """
        base, environment = self._base, dict(os.environ) | thread_settings()
        if not base.is_present:
            if base.builder is None:
                raise LocalRunError(
                    f"{base.checkpoint} holds no model.safetensors; `git checkout {base.checkpoint}` brings it back"
                )
            self._supervisor.run([sys.executable, "-m", base.builder], environment, doing=f"converting {base.model}")
        engine = [
            *(sys.executable, "-m", "build.reference_engine"),
            *("--checkpoint", str(base.checkpoint)),
            *("--name", base.model),
            *("--output", str(self._run.engine(base.key))),
            *self._options.engine,
        ]
        with _Step(self._console, f"engine for {base.model}"):
            self._supervisor.run(
                engine, environment, doing=f"building the engine for {base.model}", log=self._run.log("engine")
            )

    def services(self) -> list[RunningService]:
        """Start all three, each when the one before it can be used."""
        run, base, ports, addresses = self._run, self._base, self._ports, self._addresses
        config = write_config(run, base, ports, self._keys, workers=self._options.workers)
        starting = (
            (valkey_service(run, base.key, ports), addresses.valkey),
            (
                triton_service(run, base.key, ports),
                f"{addresses.triton_grpc} gRPC, {ports.triton_http} HTTP, {ports.triton_metrics} metrics",
            ),
            (
                gateway_service(run, config, ports, self._keys),
                f"{addresses.gateway}/v1, admin {addresses.admin}",
            ),
        )
        running = []
        for service, address in starting:
            with _Step(self._console, service.name):
                pid = self._supervisor.start(service)
                self._supervisor.wait_until_ready(service)
            running.append(RunningService(name=service.name, address=address, pid=pid, log=str(service.log)))
        return running

    def register(self, register: Register) -> list[DemoProfile]:
        """
        Register the demo profiles and wait until callers can name them.

        Raises:
            LocalRunError: the gateway refuses one, or does not serve it in time.
        """
        access = AdminAccess(url=self._addresses.admin, key=self._keys.admin.text)
        profiles = demo_profiles(self._base.demo)
        with _Step(self._console, f"{len(profiles)} demo profiles") as step:
            new = 0
            for profile in profiles:
                new += register(access, profile)
                self._supervisor.pause(0)
            step.detail = f"{new} new"
            deadline = time.monotonic() + _VISIBLE_WITHIN_S
            while missing := self._invisible(profiles):
                if time.monotonic() > deadline:
                    raise LocalRunError(
                        f"the gateway registered {', '.join(missing)} and does not serve it;"
                        f" its log: {self._run.log('gateway')}"
                    )
                self._supervisor.pause(0.02)
        return profiles

    def _invisible(self, profiles: list[DemoProfile]) -> list[str]:
        """Profiles that the worker which answers now has not read from the index yet."""
        visible = {tenant: visible_models(self._ports, key.text) for tenant, key in self._keys.tenants.items()}
        return [
            f"{profile.tenant}/{profile.name}" for profile in profiles if profile.name not in visible[profile.tenant]
        ]

    def tell(self, services: list[RunningService], profiles: list[DemoProfile], *, ready_s: float) -> None:
        """Write where the run is and its keys, and say so."""
        write_env(self._run, self._addresses, self._keys)
        ready = Ready(
            base=self._base.model,
            run_directory=str(self._run.root),
            env=str(self._run.env),
            addresses=self._addresses,
            services=services,
            profiles=profiles,
            ready_s=ready_s,
            resident_bytes=resident_bytes([os.getpid(), *descendants(os.getpid())]),
        )
        write_private(self._run.ready, msgspec.json.encode(ready).decode())
        if self._options.as_json:
            print_ready(ready)
        else:
            print_summary(self._console, ready, question=self._base.question)


def ports_of(options: Options) -> Ports:
    """
    Raises:
        LocalRunError: the options name ports that do not exist, or one twice.
    """
    try:
        ports = Ports().shifted(options.port_offset)
    except ValueError as error:
        raise LocalRunError(str(error)) from error
    if options.port is not None:
        ports = replace(ports, gateway=options.port)
    numbers = list(ports.named().values())
    if len(set(numbers)) < len(numbers):
        raise LocalRunError(f"port {options.port} is another service's; choose one outside {sorted(set(numbers))}")
    return ports


def require_free(ports: Ports) -> None:
    """
    Raises:
        LocalRunError: a port is taken; the text says which and, where it can be seen, by whom.
    """
    for name, port in ports.named().items():
        if not is_free(port):
            who = holder(port) or "a process that cannot be seen from here"
            raise LocalRunError(
                f"port {port} ({name}) is taken by {who}: stop it, or move all of Tailor's ports with"
                " --port-offset N (make: PORT_OFFSET=N)"
            )


class _Step:
    """One line per step, with what it took; on a terminal its name stands there meanwhile."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self.detail = ""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._console.is_terminal:
            self._console.print(f"[dim]… {self._name}[/]", end="\r", highlight=False)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            seconds = time.monotonic() - self._began
            detail = f"  {self.detail}" if self.detail else ""
            self._console.print(f"[green]✓[/] {self._name} [dim]{seconds:.1f} s{detail}[/]", highlight=False)
