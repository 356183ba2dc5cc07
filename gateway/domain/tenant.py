"""
Who pays: a tenant as an admitted request sees it. Does not know keys or limits.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tenant:
    """`bases` names the base models it may call bare; its profiles it may call always."""

    name: str
    bases: frozenset[str]
