"""
Failures of the adapter path that are nobody's adapter: names, states, room, and what Redis has to say.

    RegistryError (a TailorError)
    ├── NotRegistered        no such profile, version or label
    ├── RegistryConflict     it exists, and what is asked would contradict it
    ├── UploadInvalid        what was sent is no upload
    ├── UploadTooLarge
    ├── StorageFull          the adapter store has no room
    └── RegistryUnavailable  the catalog's index cannot be written now

A refused adapter is gateway.adapters.refusal.AdapterRefused. Does not know HTTP numbers (transport does).
"""

from gateway.domain.errors import TailorError


class RegistryError(TailorError):
    """`param` names what the sentence is about, where it is one parameter."""

    code = "registry_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class NotRegistered(RegistryError):
    """No such profile, version or label."""

    code = "not_found"


class RegistryConflict(RegistryError):
    """What is asked contradicts what is there."""

    code = "adapter_conflict"


class UploadInvalid(RegistryError):
    """The body or a parameter of an upload breaks a rule."""

    code = "invalid_upload"


class UploadTooLarge(RegistryError):
    """The upload is over the limit."""

    code = "request_too_large"


class StorageFull(RegistryError):
    """The adapter store has no room; nothing was kept."""

    code = "storage_full"


class RegistryUnavailable(RegistryError):
    """The catalog's index cannot be reached, so nothing may change."""

    code = "state_unavailable"
