"""
What is refused when a gateway is put together: files that are each right and do not go together.
"""

from pathlib import Path

import msgspec
import pytest

from gateway.config import BaseConfig, Config, ConfigError, EndpointConfig, StoreConfig
from gateway.domain.manifest import EngineManifest
from gateway.wiring import control_app, worker_app
from tests.contract.backends.worlds import TINY
from tests.unit.domain.making import MANIFEST

REPLACE = msgspec.structs.replace
ASSEMBLIES = pytest.mark.parametrize("assemble", [worker_app, control_app])


def configured(folder: Path, *manifests: EngineManifest) -> Config:
    endpoints = []
    for number, manifest in enumerate(manifests, 1):
        (folder / f"{number}.json").write_bytes(msgspec.json.encode(manifest))
        endpoints.append(EndpointConfig(name=f"triton-{number}", url="127.0.0.1:1", manifest=f"{number}.json"))
    return Config(
        store=StoreConfig(directory="store"),
        key_pepper="a pepper of the tests",
        bases=(BaseConfig(name="tiny", tokenizer=str(TINY)),),
        endpoints=tuple(endpoints),
    )


@ASSEMBLIES
def test_engines_of_a_base_that_take_other_tensors_are_refused(tmp_path, assemble):
    # A request may go to any endpoint of its base, and a tensor of the wrong kind can end everybody's there.
    other = REPLACE(MANIFEST, lora=REPLACE(MANIFEST.lora, max_rank=8))
    with pytest.raises(ConfigError, match=r"`triton-1` and `triton-2` both serve base `tiny`"):
        assemble(configured(tmp_path, MANIFEST, other), tmp_path)


@ASSEMBLIES
async def test_engines_of_a_base_may_differ_in_size(tmp_path, assemble):
    # As uvicorn does, inside a running loop: channels belong to one.
    larger = REPLACE(MANIFEST, max_batch_size=8, max_total_tokens=1024, lora=REPLACE(MANIFEST.lora, cache_bytes=1))
    assert assemble(configured(tmp_path, MANIFEST, larger), tmp_path)


@ASSEMBLIES
def test_an_endpoint_of_an_unknown_base_is_refused(tmp_path, assemble):
    foreign = REPLACE(MANIFEST, base=REPLACE(MANIFEST.base, name="other"))
    with pytest.raises(ConfigError, match="serves base `other`, which is not among `bases`"):
        assemble(configured(tmp_path, foreign), tmp_path)


@ASSEMBLIES
def test_a_manifest_that_cannot_be_read_names_its_endpoint(tmp_path, assemble):
    config = configured(tmp_path, MANIFEST)
    (tmp_path / "1.json").unlink()
    with pytest.raises(ConfigError, match=r"endpoint `triton-1`: engine manifest .*1\.json cannot be read"):
        assemble(config, tmp_path)
