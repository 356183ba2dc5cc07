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

from rich.console import Console

from gateway.local import triton
from gateway.local.bases import BASES, BaseName, LocalBase
from gateway.local.config_file import Addresses, Keys, write_config, write_env
from gateway.local.demo import DemoProfile, demo_profiles
from gateway.local.errors import LocalRunError
from gateway.local.layout import RunDirectory
from gateway.local.ports import Ports, holder, is_free
from gateway.local.processes import descendants, resident_bytes
from gateway.local.services import gateway_service, triton_service, valkey_service
from gateway.local.summary import Ready, RunningService, print_ready, print_summary
from gateway.local.supervisor import Service, Supervisor
from gateway.local.threads import thread_settings

_GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`port` moves the gateway alone, `port_offset` everything."""

    base: BaseName
    run_directory: Path
    port: int | None
    port_offset: int
    workers: int
    as_json: bool = False


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
    base = BASES[options.base]
    ports = ports_of(options)
    run = RunDirectory(options.run_directory.resolve())
    run.create()
    prefix = triton.shared_memory_prefix(ports)
    with run.held() as lock:
        require_free(ports)
        triton.remove_shared_memory(prefix)
        with Supervisor(grace_s=_GRACE_S, shared_memory_prefix=prefix, lock=lock) as supervisor:
            try:
                _run_inside(supervisor, run, base, ports, options, register, console, began)
            finally:
                run.env.unlink(missing_ok=True)  # its keys die with the run
                console.print("[dim]stopping …[/]")


def _run_inside(
    supervisor: Supervisor,
    run: RunDirectory,
    base: LocalBase,
    ports: Ports,
    options: Options,
    register: Register,
    console: Console,
    began: float,
) -> None:
    prepare(supervisor, run, base, console)
    keys, addresses = Keys.fresh(), Addresses.of(ports)
    config = write_config(run, base, ports, keys, workers=options.workers)
    starting = (
        (valkey_service(run, base.key, ports), addresses.valkey),
        (
            triton_service(run, base.key, ports),
            f"{addresses.triton_grpc} gRPC, {ports.triton_http} HTTP, {ports.triton_metrics} metrics",
        ),
        (gateway_service(run, config, ports, keys), f"{addresses.gateway}/v1, admin {addresses.admin}"),
    )
    services = [
        RunningService(name=service.name, address=address, pid=_up(supervisor, service, console), log=str(service.log))
        for service, address in starting
    ]
    access = AdminAccess(url=addresses.admin, key=keys.admin.text)
    profiles = demo_profiles(base.demo)
    with _Step(console, f"{len(profiles)} demo profiles") as step:
        new = 0
        for profile in profiles:
            new += register(access, profile)
            supervisor.pause(0)
        step.detail = f"{new} new"
    write_env(run, addresses, keys)
    ready = Ready(
        base=base.model,
        run_directory=str(run.root),
        env=str(run.env),
        addresses=addresses,
        services=services,
        profiles=profiles,
        ready_s=time.monotonic() - began,
        resident_bytes=resident_bytes([os.getpid(), *descendants(os.getpid())]),
    )
    if options.as_json:
        print_ready(ready)
    else:
        print_summary(console, ready, question=base.question)
    supervisor.watch()


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


def prepare(supervisor: Supervisor, run: RunDirectory, base: LocalBase, console: Console) -> None:
    """
    Make the base model where it is absent, and its engine directory.

    Raises:
        LocalRunError: one of them cannot be made.
    """
    environment = dict(os.environ) | thread_settings()
    if not base.is_present:
        if base.builder is None:
            raise LocalRunError(
                f"{base.checkpoint} holds no model.safetensors; `git checkout {base.checkpoint}` brings it back"
            )
        supervisor.run([sys.executable, "-m", base.builder], environment, doing=f"converting {base.model}")
    engine = [
        *(sys.executable, "-m", "build.reference_engine"),
        *("--checkpoint", str(base.checkpoint)),
        *("--name", base.model),
        *("--output", str(run.engine(base.key))),
    ]
    with _Step(console, f"engine for {base.model}"):
        supervisor.run(engine, environment, doing=f"building the engine for {base.model}", log=run.log("engine"))


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


def _up(supervisor: Supervisor, service: Service, console: Console) -> int:
    with _Step(console, service.name):
        pid = supervisor.start(service)
        supervisor.wait_until_ready(service)
    return pid
