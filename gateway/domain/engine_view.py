"""
One endpoint as operators see it: what its engine can take, and whether it says that it is there.
"""

import msgspec

from gateway.domain.manifest import EngineManifest


class EngineView(msgspec.Struct, frozen=True):
    """`ready`: Triton's own word at the moment of asking; it does not say that tokens come."""

    endpoint: str
    address: str
    ready: bool
    manifest: EngineManifest
