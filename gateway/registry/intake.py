"""
What was received, as a version will record it.
"""

import hashlib

from gateway.adapters.archive import ReceivedAdapter, ReceivedFile, Upload
from gateway.adapters.peft_config import canonical, kind_of, parse_raw
from gateway.adapters.refusal import AdapterRefused, RefusalCode
from gateway.domain.version import AdapterSource, Blob


def adapter_sources(upload: Upload) -> tuple[AdapterSource, ...]:
    """
    One record for each adapter.

    Raises:
        AdapterRefused: a configuration that cannot be read, or two adapters of one kind.
    """
    sources = tuple(_source(item) for item in upload.adapters)
    if len({source.kind for source in sources}) < len(sources):
        raise AdapterRefused(
            RefusalCode.COMBINATION_UNSUPPORTED,
            f"Both adapters are of the kind {sources[0].kind}; a profile can carry one of each kind.",
            "Register them as two profiles, or merge them in peft (combination_type='cat') first.",
        )
    return sources


def _source(received: ReceivedAdapter) -> AdapterSource:
    raw = parse_raw(received.config.path.read_bytes())
    return AdapterSource(
        kind=kind_of(raw),
        peft_type=str(raw["peft_type"]),
        config=_blob(received.config),
        canonical=hashlib.sha256(canonical(raw)).hexdigest(),
        weights=_blob(received.weights),
    )


def _blob(file: ReceivedFile) -> Blob:
    return Blob(sha256=file.sha256, bytes=file.bytes)
