"""What the LoRA cache keeps, evicts and refuses."""

import pytest
from tailor_engine.adapter import Adapter
from tailor_engine.errors import LoraExpectedError, RequestError
from tailor_engine.lora_cache import LoraCache


def _adapter(task_id: int, nbytes: int = 10) -> Adapter:
    return Adapter(task_id, (), nbytes)


def test_an_unknown_id_is_a_miss() -> None:
    with pytest.raises(
        LoraExpectedError, match=r"^LoRA task 7 not found in cache\. Please send LoRA weights with request$"
    ):
        LoraCache(100).use(7)


def test_the_bound_is_in_bytes_and_reached_exactly() -> None:
    cache = LoraCache(30)
    for task_id in (1, 2, 3):
        cache.store(_adapter(task_id))
    assert cache.held_bytes == 30
    assert len(cache) == 3
    cache.store(_adapter(4, 11))
    assert cache.held_bytes == 21
    assert [task_id for task_id in (1, 2, 3, 4) if task_id in cache] == [3, 4]


def test_the_least_recently_used_goes_first() -> None:
    cache = LoraCache(20)
    cache.store(_adapter(1))
    cache.store(_adapter(2))
    cache.use(1)
    cache.release(1)
    cache.store(_adapter(3))
    assert 1 in cache
    assert 2 not in cache


def test_what_is_in_use_is_never_evicted() -> None:
    cache = LoraCache(20)
    for task_id in (1, 2):
        cache.store(_adapter(task_id))
        cache.use(task_id)
    with pytest.raises(LoraExpectedError, match=r"^PEFT Cache is full. Could not store taskId=3: Cache is full."):
        cache.store(_adapter(3))
    assert cache.held_bytes == 20
    cache.release(2)
    cache.store(_adapter(3))
    assert 1 in cache
    assert 2 not in cache


def test_an_adapter_is_in_use_until_every_user_gave_it_back() -> None:
    cache = LoraCache(10)
    cache.store(_adapter(1))
    cache.use(1)
    cache.use(1)
    cache.release(1)
    with pytest.raises(LoraExpectedError):
        cache.store(_adapter(2))
    cache.release(1)
    cache.store(_adapter(2))


def test_a_failed_store_evicts_nothing() -> None:
    cache = LoraCache(30)
    for task_id in (1, 2, 3):
        cache.store(_adapter(task_id))
    cache.use(2)
    cache.use(3)
    with pytest.raises(LoraExpectedError):
        cache.store(_adapter(4, 20))
    assert 1 in cache


def test_an_adapter_larger_than_the_cache_can_never_fit() -> None:
    with pytest.raises(RequestError, match="Error storing task=1 in PEFT cache -- the adapter takes 11 bytes"):
        LoraCache(10).store(_adapter(1, 11))
