"""Extents, eviction and reuse of KV blocks."""

import random

from tailor_engine.kv_blocks import BlockPool, Extent, Move, prefix_digests


def _take(pool: BlockPool, count: int) -> Extent:
    allocation = pool.allocate(count)
    assert allocation is not None
    return allocation.extent


def test_extents_do_not_overlap_and_come_back() -> None:
    pool = BlockPool(10)
    first, second = _take(pool, 4), _take(pool, 6)
    assert sorted([*range(first.start, first.start + 4), *range(second.start, second.start + 6)]) == list(range(10))
    assert pool.allocate(1) is None
    pool.release(first)
    assert pool.stats().free == 4
    assert _take(pool, 4).start == first.start


def test_holes_are_joined_when_no_one_of_them_is_large_enough() -> None:
    pool = BlockPool(9)
    extents = [_take(pool, 3) for _ in range(3)]
    pool.release(extents[0])
    pool.release(extents[2])
    middle = extents[1]
    allocation = pool.allocate(6)
    assert allocation is not None
    assert allocation.moves == (Move(3, 0, 3),)
    assert middle.start == 0
    assert allocation.extent.start == 3


def test_published_blocks_are_found_again_after_their_owner_left() -> None:
    pool = BlockPool(8)
    owner = _take(pool, 3)
    pool.publish(owner, [b"a", b"b"])
    pool.release(owner)
    allocation = pool.allocate(4, [b"a", b"b", b"c"])
    assert allocation is not None
    assert allocation.reused == (owner.start, owner.start + 1)
    assert pool.stats().reused == 2


def test_a_prefix_is_reused_up_to_its_first_unknown_block() -> None:
    pool = BlockPool(8)
    owner = _take(pool, 2)
    pool.publish(owner, [b"a", b"b"])
    allocation = pool.allocate(2, [b"x", b"b"])
    assert allocation is not None
    assert allocation.reused == ()


def test_free_blocks_are_taken_before_cached_ones_and_old_cached_ones_before_new() -> None:
    pool = BlockPool(6)
    for name in (b"old", b"new"):
        owner = _take(pool, 2)
        pool.publish(owner, [name + b"1", name + b"2"])
        pool.release(owner)
    # old lies in 0..1, new in 2..3, nothing in 4..5
    assert _take(pool, 2).start == 4
    again = pool.allocate(2, [])
    assert again is not None
    assert again.extent.start == 0
    found = pool.allocate(2, [b"new1", b"new2"])
    assert found is not None
    assert found.reused == (2, 3)  # read before they are overwritten: kv_cache copies through a clone


def test_reading_a_cached_block_makes_it_recent() -> None:
    pool = BlockPool(6)
    for name in (b"a", b"b"):
        owner = _take(pool, 2)
        pool.publish(owner, [name, name * 2])
        pool.release(owner)
    third = pool.allocate(2, [b"a", b"aa"])
    assert third is not None
    assert third.reused == (0, 1)
    taken = _take(pool, 2)
    assert taken.start == 2, "b, the one not read since, is given up"


def test_equal_content_is_cached_once() -> None:
    pool = BlockPool(4)
    first, second = _take(pool, 2), _take(pool, 2)
    pool.publish(first, [b"a"])
    pool.publish(second, [b"a"])
    pool.release(first)
    pool.release(second)
    assert _take(pool, 3) is not None


def test_compaction_keeps_what_running_sequences_published() -> None:
    pool = BlockPool(9)
    first, second, third = (_take(pool, 3) for _ in range(3))
    pool.publish(second, [b"kept"])
    pool.release(first)
    pool.release(third)
    assert pool.allocate(6) is not None
    pool.release(second)
    found = pool.allocate(1, [b"kept"])
    assert found is not None
    assert found.reused == (0,)


def test_random_use_never_gives_a_block_twice() -> None:
    chooser = random.Random(7)
    pool = BlockPool(40)
    held: list[Extent] = []
    for step in range(3000):
        if held and chooser.random() < 0.5:
            pool.release(held.pop(chooser.randrange(len(held))))
        else:
            names = [str((step % 17, place)).encode() for place in range(chooser.randint(0, 4))]
            allocation = pool.allocate(chooser.randint(4, 12), names)
            if allocation is not None:
                pool.publish(allocation.extent, names)
                held.append(allocation.extent)
        owned = [block for extent in held for block in range(extent.start, extent.start + extent.count)]
        assert len(owned) == len(set(owned))
        assert all(0 <= block < 40 for block in owned)
        assert pool.stats().used == len(owned)


def test_a_digest_covers_tokens_their_place_extra_ids_and_adapter() -> None:
    tokens = list(range(12))
    plain = prefix_digests(tokens, None, None, 4)
    assert len(plain) == 3
    assert plain == prefix_digests([*tokens, 99], None, None, 4)
    assert plain == prefix_digests(tokens, [0] * 12, None, 4)
    assert prefix_digests(tokens[:11], None, None, 4) == plain[:2]
    others = [
        prefix_digests([99, *tokens[1:]], None, None, 4),
        prefix_digests(tokens, None, 1, 4),
        prefix_digests(tokens, None, 2, 4),
        prefix_digests(tokens, [7] + [0] * 11, None, 4),
        prefix_digests(tokens, [1 << 63] + [0] * 11, None, 4),
    ]
    seen = {*plain, *(digest for digests in others for digest in digests)}
    assert len(seen) == 3 * 6, "one changed id at the beginning changes every block behind it"
    assert prefix_digests([*tokens[:11], 99], None, None, 4)[:2] == plain[:2]
