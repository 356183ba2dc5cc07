"""Who runs, and how many prompt tokens each may read."""

from tailor_engine.adapter import Adapter
from tailor_engine.kv_blocks import BlockPool
from tailor_engine.request import EngineRequest
from tailor_engine.scheduler import Scheduler, SchedulerLimits
from tailor_engine.sequence import Sequence

from tests.unit.engine.sequences import sequence


def _scheduler(blocks: int = 100, sequences: int = 8, chunk: int = 10, most: int = 40) -> Scheduler:
    return Scheduler(SchedulerLimits(sequences, 4, chunk, most), BlockPool(blocks))


def _prompt(length: int, new_tokens: int = 4, adapter: Adapter | None = None) -> Sequence:
    return sequence(EngineRequest((1,) * length, new_tokens), adapter=adapter)


def _read(scheduler: Scheduler, made: Sequence, length: int) -> None:
    """Bring a running sequence to its first token."""
    made.written = length
    made.tokens.append(2)


def test_admission_is_in_order_and_waits_for_room_rather_than_let_a_small_one_pass() -> None:
    scheduler = _scheduler(blocks=10)
    large, larger, small = _prompt(20), _prompt(24), _prompt(4)
    for made in (large, larger, small):
        scheduler.add(made)
    assert [made for made, _ in scheduler.admit()] == [large]
    assert scheduler.admit() == []
    scheduler.remove(large)
    assert [made for made, _ in scheduler.admit()] == [larger, small]


def test_room_for_every_new_token_is_kept_from_the_start() -> None:
    scheduler = _scheduler(blocks=10)
    assert scheduler.blocks_needed(_prompt(5, 3)) == 2
    assert scheduler.blocks_needed(_prompt(5, 4)) == 3
    scheduler.add(_prompt(5, 35))
    assert len(scheduler.admit()) == 1
    assert scheduler.pool.stats().free == 0


def test_no_more_run_than_the_batch_holds() -> None:
    scheduler = _scheduler(sequences=2)
    for _ in range(3):
        scheduler.add(_prompt(4))
    assert len(scheduler.admit()) == 2
    assert len(scheduler.waiting) == 1


def test_prompts_take_large_steps_while_nobody_decodes() -> None:
    scheduler = _scheduler(most=40)
    first, second = _prompt(30), _prompt(30)
    scheduler.add(first)
    scheduler.add(second)
    scheduler.admit()
    assert [(share.sequence, share.start, share.end) for share in scheduler.shares()] == [
        (first, 0, 30),
        (second, 0, 10),
    ]


def test_every_decoding_sequence_gets_its_token_beside_a_chunk() -> None:
    scheduler = _scheduler(chunk=10)
    decoding = [_prompt(4) for _ in range(3)]
    for made in decoding:
        scheduler.add(made)
    scheduler.admit()
    for made in decoding:
        _read(scheduler, made, 4)
    reading = _prompt(30)
    scheduler.add(reading)
    scheduler.admit()
    shares = scheduler.shares()
    assert [(share.start, share.end) for share in shares if share.sequence is reading] == [(0, 10)]
    assert {id(share.sequence) for share in shares if share.end - share.start == 1} == {id(made) for made in decoding}
    assert all(share.samples == (share.sequence is not reading) for share in shares)


def test_the_last_chunk_samples() -> None:
    scheduler = _scheduler()
    made = _prompt(45)
    scheduler.add(made)
    scheduler.admit()
    (share,) = scheduler.shares()
    assert not share.samples
    made.written = share.end
    (share,) = scheduler.shares()
    assert (share.start, share.end, share.samples) == (40, 45, True)


def test_shares_of_one_adapter_are_neighbours() -> None:
    scheduler = _scheduler(most=100)
    adapters = [Adapter(task_id, (), 0) for task_id in (7, 3)]
    order = [adapters[0], None, adapters[1], adapters[0], None]
    for adapter in order:
        scheduler.add(_prompt(4, adapter=adapter))
    scheduler.admit()
    seen = [share.sequence.adapter for share in scheduler.shares()]
    assert seen == [None, None, adapters[1], adapters[0], adapters[0]]


def test_a_reused_prefix_is_not_read_again_but_its_last_token_is() -> None:
    scheduler = _scheduler()
    first = _prompt(12)
    first.prompt_digests = [b"a", b"b", b"c"]
    scheduler.add(first)
    scheduler.admit()
    assert first.extent is not None
    scheduler.pool.publish(first.extent, first.prompt_digests)
    second = _prompt(12)
    second.prompt_digests = first.prompt_digests
    scheduler.add(second)
    ((_, allocation),) = scheduler.admit()
    assert len(allocation.reused) == 2
    assert second.written == 8


def test_a_waiting_sequence_can_be_taken_out() -> None:
    scheduler = _scheduler()
    made = _prompt(4)
    scheduler.add(made)
    scheduler.remove(made)
    assert not scheduler.waiting
    assert scheduler.admit() == []
