"""
The SendingBook port: numbers that only grow, and a right to send that one has at a time and nobody keeps for ever.
"""

import asyncio

import pytest

from gateway.ports import SendingBook
from gateway.stores.redis_client import redis_client
from gateway.stores.sendings import RedisSendings


async def claimed(book: SendingBook) -> None:
    """Ask for the right until it is had."""
    async with asyncio.timeout(20):
        while not await book.claim("t", 7, 30.0):  # noqa: ASYNC110 - a right that lapses sets no event
            await asyncio.sleep(0.01)


async def test_nothing_was_sent_at_first(books):
    assert await books().last("t", 7) == 0


async def test_a_sending_is_known_to_all(books):
    one, other = books(), books()
    number = await one.sent("t", 7, after=0)
    assert number > 0
    assert await other.last("t", 7) == number
    assert await other.last("t", 8) == 0
    assert await other.last("u", 7) == 0


async def test_numbers_only_grow_whoever_sends(books):
    one, other = books(), books()
    numbers = []
    for book in (one, other, one, one, other):
        numbers.append(await book.sent("t", 7, after=max(numbers, default=0)))
        assert await book.last("t", 7) == numbers[-1]
    assert numbers == sorted(set(numbers))


async def test_a_number_is_greater_than_what_it_follows_even_from_a_clock_that_is_ahead(books):
    ahead = 2**60
    number = await books().sent("t", 7, after=ahead)
    assert number > ahead
    assert await books().last("t", 7) == number


async def test_one_at_a_time_has_the_right(books):
    one, other = books(), books()
    assert await one.claim("t", 7, 30.0)
    assert not await other.claim("t", 7, 30.0)
    assert await other.claim("t", 8, 30.0)
    assert await other.claim("u", 7, 30.0)


async def test_of_many_who_ask_at_once_one_gets_it(books):
    answers = await asyncio.gather(*(books().claim("t", 7, 30.0) for _ in range(50)))
    assert answers.count(True) == 1


async def test_a_sending_gives_the_right_back(books):
    one, other = books(), books()
    assert await one.claim("t", 7, 30.0)
    await one.sent("t", 7, after=0)
    assert await other.claim("t", 7, 30.0)


async def test_giving_up_gives_it_back_and_is_no_sending(books):
    one, other = books(), books()
    assert await one.claim("t", 7, 30.0)
    await one.give_up("t", 7)
    assert await other.last("t", 7) == 0
    assert await other.claim("t", 7, 30.0)


async def test_the_right_of_one_who_died_lapses(books):
    assert await books().claim("t", 7, 0.05)
    await claimed(books())


async def test_one_who_comes_back_late_does_not_take_anothers_right(redis_books):
    slow, other, third = redis_books(), redis_books(), redis_books()
    assert await slow.claim("t", 7, 0.02)
    await claimed(other)
    await slow.give_up("t", 7)
    assert not await third.claim("t", 7, 30.0)


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_without_redis_each_goes_by_its_own_book(mortal_valkey, fault):
    client = redis_client(mortal_valkey.url, 0.1)
    book = RedisSendings(client)
    before = await book.sent("t", 7, after=0)
    mortal_valkey.stop() if fault == "stopped" else mortal_valkey.freeze()
    assert await book.last("t", 7) == before
    assert await book.claim("t", 7, 30.0)
    number = await book.sent("t", 7, after=before)
    assert number > before
    assert await book.last("t", 7) == number
    await book.give_up("t", 7)
    await client.aclose()


async def test_what_was_sent_meanwhile_still_counts_when_redis_is_back(mortal_valkey):
    client = redis_client(mortal_valkey.url, 0.5)
    book = RedisSendings(client)
    mortal_valkey.stop()
    number = await book.sent("t", 7, after=0)
    mortal_valkey.start()
    assert await book.last("t", 7) == number
    assert await book.sent("t", 7, after=number) > number
    await client.aclose()
