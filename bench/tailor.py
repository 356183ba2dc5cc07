"""
Tailor as it is measured: its configuration, and the profiles it gets.

Decides that one gateway serves two bases: tiny on the real Triton, and the same under another name on the stand-in.
Does not start anything.
"""

from pathlib import Path

import msgspec
import yaml

from bench.plan import ENGINE_BASE, PACED_BASE
from bench.ports import BenchPorts
from gateway.adapters.archive import ProfileNotes, archive, archive_size
from gateway.adapters.directory import find_adapter
from gateway.adapters.refusal import AdapterRefused
from gateway.cli.client import AdminClient
from gateway.cli.output import CommandError
from gateway.cli.settings import AdminSettings
from gateway.domain.manifest import load_manifest
from gateway.local.bases import LocalBase
from gateway.local.config_file import PEPPER_VARIABLE, Keys
from gateway.local.demo import DemoProfile
from gateway.local.errors import LocalRunError
from gateway.local.layout import RunDirectory, write_private
from gateway.local.ports import HOST
from gateway.registry.limits import Registration


def write_configuration(run: RunDirectory, base: LocalBase, ports: BenchPorts, keys: Keys) -> Path:
    """Write `tailor.yaml`, and the stand-in's manifest: the real engine's with another name of the base."""
    real, paced = run.engine(base.key) / "manifest.json", run.root / "paced-manifest.json"
    manifest = load_manifest(real)
    renamed = msgspec.structs.replace(manifest, base=msgspec.structs.replace(manifest.base, name=PACED_BASE))
    paced.write_bytes(msgspec.json.encode(renamed))
    bases = [ENGINE_BASE, PACED_BASE]
    document = {
        "listen": {"host": HOST, "port": ports.tailor.gateway, "workers": 1},
        "admin": {"host": HOST, "port": ports.tailor.admin},
        "redis": {"url": f"redis://{HOST}:{ports.tailor.valkey}/0"},
        "store": {"directory": str(run.store(base.key))},
        "key_pepper": f"${{{PEPPER_VARIABLE}}}",
        "bases": [{"name": name, "tokenizer": str(base.checkpoint)} for name in bases],
        "endpoints": [
            {"name": "triton-1", "url": f"{HOST}:{ports.tailor.triton_grpc}", "manifest": str(real)},
            {"name": "paced-1", "url": f"{HOST}:{ports.paced_triton}", "manifest": str(paced)},
        ],
        "tenants": [
            {"name": name, "keys": [{"id": key.id, "hash": key.hash}], "bases": bases}
            for name, key in keys.tenants.items()
        ],
        "admin_keys": [{"id": keys.admin.id, "hash": keys.admin.hash, "name": "bench"}],
    }
    write_private(run.config, yaml.safe_dump(document, sort_keys=False))
    return run.config


def register(ports: BenchPorts, keys: Keys, profile: DemoProfile) -> None:
    """
    Register a demo profile for the real engine.

    Raises:
        LocalRunError: the gateway refuses it.
    """
    files = [find_adapter(Path(directory)) for directory in profile.directories]
    notes = ProfileNotes(instruction=profile.instruction, description=profile.description)
    what = Registration(tenant=profile.tenant, name=profile.name, base=ENGINE_BASE)
    try:
        with AdminClient(AdminSettings(f"http://{HOST}:{ports.tailor.admin}", keys.admin.text)) as client:
            client.register(what, archive(files, notes), archive_size(files, notes))
    except (AdapterRefused, CommandError) as error:
        raise LocalRunError(f"the demo profile {profile.name} was not registered: {error}") from error
