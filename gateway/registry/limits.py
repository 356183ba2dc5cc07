"""
The bounds of the adapter path, and what a registration says beside the files.
"""

from dataclasses import dataclass, field

from gateway.adapters.job_limits import JobLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryLimits:
    """Bounds of the adapter path. `lock_wait_s`: how long one change waits for another process's."""

    max_upload_bytes: int = 2 << 30
    max_uploads: int = 4
    max_conversions: int = 1
    max_versions: int = 1000
    lock_wait_s: float = 600.0
    conversion: JobLimits = field(default_factory=JobLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a version is to be registered as. `base` may be None where there is only one."""

    tenant: str
    name: str
    base: str | None = None
    promote: bool = False
    any_base_name: bool = False
