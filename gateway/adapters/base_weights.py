"""
The base's own weights, a few rows at a time, for the one kind of adapter that needs them (DoRA).

Decides where a checkpoint keeps a layer. Reads by memory map, so that a base of any size costs what one block of rows
takes. Does not know what the rows are for.
"""

import hashlib
import json
from pathlib import Path

from gateway.adapters.modules import Place, shape_of
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.adapters.safetensors_file import FloatArray, SafetensorsFile
from gateway.domain.manifest import EngineManifest

_CHUNK = 1 << 22


class BaseWeights:
    """The linear layers of a Hugging Face checkpoint directory: one model.safetensors, or shards with their index."""

    def __init__(self, engine: EngineManifest) -> None:
        """
        Find the files; a single file is also compared with the manifest's fingerprint.

        Raises:
            AdapterRefused: they are missing, or are not what the engine was built from.
        """
        self._engine = engine
        self._folder = Path(engine.base.checkpoint)
        self._files: dict[str, SafetensorsFile] = {}
        self._shards = self._find()

    def rows(self, place: Place, start: int, stop: int) -> FloatArray:
        """Rows [start, stop) of a layer's weight, as float32. Raises AdapterRefused where it is not as the engine's."""
        name = f"{place.path}.weight"
        file = self._file(name)
        if file is None:
            raise self._unreadable(f"it holds no {name}")
        if file.tensors[name].shape != shape_of(place.module, self._engine):
            raise self._unreadable(f"its {name} has another shape than the engine's")
        return file.load_rows(name, start, stop)

    def has_bias(self, place: Place) -> bool:
        """Whether the base adds a bias to this layer's output."""
        return self._file(f"{place.path}.bias") is not None

    def _file(self, tensor: str) -> SafetensorsFile | None:
        shard = self._shards.get(tensor)
        if shard is None:
            return None
        if shard not in self._files:
            self._files[shard] = self._open(shard)
        file = self._files[shard]
        if tensor not in file:
            raise self._unreadable(f"{shard} lacks {tensor}, which its index promises")
        return file

    def _open(self, shard: str) -> SafetensorsFile:
        try:
            return SafetensorsFile(self._folder / shard, strict=False)
        except OSError as error:
            raise self._unreadable(f"{shard}: {error.strerror}") from error

    def _find(self) -> dict[str, str]:
        single, index = self._folder / "model.safetensors", self._folder / "model.safetensors.index.json"
        if single.is_file():
            self._check_fingerprint(single)
            file = self._open(single.name)
            self._files[single.name] = file
            return dict.fromkeys(file, single.name)
        try:
            weight_map = json.loads(index.read_bytes())["weight_map"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable("it has neither model.safetensors nor model.safetensors.index.json") from error
        return {str(tensor): Path(str(shard)).name for tensor, shard in weight_map.items()}

    def _check_fingerprint(self, file: Path) -> None:
        expected = self._engine.base.fingerprint
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        if f"sha256:{digest.hexdigest()}" != expected:
            raise self._unreadable("its model.safetensors is not the file the engine was built from")

    def _unreadable(self, reason: str) -> AdapterRefused:
        return AdapterRefused(
            RefusalCode.BASE_UNREADABLE,
            f"DoRA needs the base's weights, and the checkpoint of {self._engine.base.name} does not do: {reason}.",
            f"Put the checkpoint at {self._folder}, or build the engine again from the one that is there.",
            {"base": self._engine.base.name},
        )
