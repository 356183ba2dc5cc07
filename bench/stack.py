"""
Everything a run measures and measures with, started together and stopped together.

Decides what there is and in which order it starts: Valkey, the real Triton with the reference engine on tiny, a
stand-in for Triton, one gateway in front of both, nginx in front of a stand-in for an OpenAI server, and the processes
that call them. Tailor's own pieces start Tailor (gateway/local). Does not measure.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from rich.console import Console

from bench import control, nginx
from bench.callers.order import Order, Tally
from bench.plan import CELLS, STEP_S, Cell, Target
from bench.ports import BenchPorts
from bench.recording import Speech, record
from bench.standins import openai as openai_standin
from bench.standins import triton as triton_standin
from bench.tailor import register, write_configuration
from gateway.domain.manifest import load_manifest
from gateway.local import triton
from gateway.local.bases import BASES, BaseName
from gateway.local.config_file import Keys
from gateway.local.demo import demo_profiles
from gateway.local.layout import RunDirectory
from gateway.local.ports import is_free
from gateway.local.processes import descendants
from gateway.local.services import gateway_service, triton_service, valkey_service
from gateway.local.supervisor import Service, Supervisor

_BASE = BASES[BaseName.TINY]
_TENANT = "acme"
_GRACE_S = 5.0
_READY_WITHIN_S = 30.0
_DIRECT = (Target.TRITONCLIENT, Target.TRANSPORT)


class Stack:
    """What runs, by name of the service, and how to have it called."""

    def __init__(self, supervisor: Supervisor, run: RunDirectory, ports: BenchPorts, console: Console) -> None:
        self.pids: dict[str, int] = {}
        self._supervisor = supervisor
        self._run = run
        self._ports = ports
        self._console = console
        self._keys = Keys.fresh()

    def start(self, seed: int) -> None:
        """
        Start everything.

        Raises:
            StopAsked, ServiceDied, LocalRunError: it could not be.
        """
        began = time.monotonic()
        run, ports, keys = self._run, self._ports, self._keys
        self._build_engine()
        manifest = load_manifest(run.engine(_BASE.key) / "manifest.json")
        longest = max(cell.tokens for cell in CELLS if cell.paced)
        self._speech = Speech.seeded(seed, _BASE.checkpoint, manifest.vocab_size, longest)
        standin = triton_standin.Settings(
            port=ports.paced_triton,
            control=str(self._socket("paced-triton")),
            interval_s=STEP_S,
            ids=self._speech.ids,
        )
        self._up(
            valkey_service(run, _BASE.key, ports.tailor),
            triton_service(run, _BASE.key, ports.tailor),
            self._own("paced-triton", "bench.standins.triton", standin),
            self._own("callers", "bench.callers.http", self._socket("callers")),
            *(
                self._own(kind, "bench.callers.direct", kind, self._socket(kind), _BASE.checkpoint)
                for kind in map(str, _DIRECT)
            ),
        )
        self._up(gateway_service(run, write_configuration(run, _BASE, ports, keys), ports.tailor, keys))
        models = {cell.model for cell in CELLS}
        for profile in demo_profiles(_BASE.demo):
            if profile.name in models:
                register(ports, keys, profile)
                self._supervisor.pause(0)
        self._start_nginx()
        seconds = time.monotonic() - began
        self._console.print(f"[green]✓[/] {len(self.pids)} services run [dim]{seconds:.1f} s[/]", highlight=False)

    def has(self, target: Target) -> bool:
        """Whether there is such a target on this machine."""
        return target is not Target.NGINX or "nginx" in self.pids

    def processes(self, service: str) -> tuple[int, ...]:
        """A service's process and all below it."""
        pid = self.pids[service]
        return (pid, *descendants(pid))

    def call(self, cell: Cell, target: Target, order: Order) -> Tally:
        """
        Have a target called; the order's port, model, key, expected text and processes are filled in here.

        Raises:
            StopAsked, ServiceDied, LocalRunError: the run ended.
        """
        ports = self._ports
        direct_port = ports.paced_triton if cell.paced else ports.tailor.triton_grpc
        port = {Target.GATEWAY: ports.tailor.gateway, Target.NGINX: ports.nginx}.get(target, direct_port)
        order = msgspec.structs.replace(
            order,
            port=port,
            model=cell.model,
            key=self._keys.tenants[_TENANT].text,
            text=self._speech.text(cell.tokens) if cell.paced else None,
            measured=() if target in _DIRECT else self.processes(target.value),
            ours=(os.getpid(), *descendants(os.getpid())),
        )
        return control.ask(self._supervisor, self._socket(target if target in _DIRECT else "callers"), order, Tally)

    def late_percent(self) -> float:
        """The share of the stand-ins' steps that could not be made at their time, since their start."""
        names = [name for name in ("paced-triton", "paced-openai") if name in self.pids]
        replies = [control.ask(self._supervisor, self._socket(name), None, triton_standin.Health) for name in names]
        steps = sum(reply.steps for reply in replies)
        return 100 * sum(reply.late_steps for reply in replies) / steps if steps else 0.0

    def _build_engine(self) -> None:
        output = self._run.engine(_BASE.key)
        command = [
            *(sys.executable, "-m", "build.reference_engine"),
            *("--checkpoint", str(_BASE.checkpoint), "--name", _BASE.model, "--output", str(output)),
        ]
        doing = f"building the engine for {_BASE.model}"
        with self._console.status(doing):
            self._supervisor.run(command, dict(os.environ), doing=doing, log=self._run.log("engine"))

    def _start_nginx(self) -> None:
        binary = nginx.find()
        if binary is None:
            return
        ports = self._ports
        paced = [cell for cell in CELLS if cell.paced]
        recordings = record(ports.tailor.gateway, self._keys.tenants[_TENANT].text, paced)
        standin = openai_standin.Settings(
            port=ports.paced_openai,
            control=str(self._socket("paced-openai")),
            interval_s=STEP_S,
            recordings=recordings,
        )
        command = nginx.command(binary, self._run.root / "nginx", port=ports.nginx, upstream=ports.paced_openai)
        self._up(
            self._own("paced-openai", "bench.standins.openai", standin),
            self._service("nginx", command, lambda: not is_free(ports.nginx)),
        )

    def _own(self, name: str, module: str, *arguments: str | Path | msgspec.Struct) -> Service:
        """A process of this package; settings travel in a file."""
        texts = []
        for argument in arguments:
            if isinstance(argument, msgspec.Struct):
                file = self._run.root / f"{name}.json"
                file.write_bytes(msgspec.json.encode(argument))
                texts.append(str(file))
            else:
                texts.append(str(argument))
        socket = self._socket(name)
        return self._service(name, [sys.executable, "-m", module, *texts], lambda: control.answers(socket))

    def _service(self, name: str, command: list[str], ready: Callable[[], bool]) -> Service:
        return Service(
            name=name,
            command=command,
            environment=dict(os.environ) | {"TOKENIZERS_PARALLELISM": "false"},
            log=self._run.log(name),
            pid_file=self._run.pids / f"{name}.pid",
            ready=ready,
            ready_within_s=_READY_WITHIN_S,
        )

    def _up(self, *services: Service) -> None:
        """Start these together, and wait until each can be used."""
        for service in services:
            self.pids[service.name] = self._supervisor.start(service)
        for service in services:
            with self._console.status(f"starting {service.name}"):
                self._supervisor.wait_until_ready(service)

    def _socket(self, name: str) -> Path:
        return self._run.root / f"{name}.sock"


@contextmanager
def running(folder: Path, seed: int, console: Console) -> Iterator[Stack]:
    """
    A stack for as long as the block lasts; all it writes lies in `folder`.

    Raises:
        StopAsked, ServiceDied, LocalRunError: it could not start, or a part of it ended.
    """
    ports = BenchPorts.free()
    run = RunDirectory(folder)
    run.create()
    prefix = triton.shared_memory_prefix(ports.tailor)
    triton.remove_shared_memory(prefix)
    with run.held() as lock, Supervisor(grace_s=_GRACE_S, shared_memory_prefix=prefix, lock=lock) as supervisor:
        stack = Stack(supervisor, run, ports, console)
        stack.start(seed)
        yield stack
