"""
Where other threads leave requests for the engine's thread.

Decides how much may wait, in requests and in bytes, and whose caller is asked whether it has left. Does not know what a
request does once it is fetched. The only part of the engine that locks.
"""

import threading
import time
from collections import deque

from .errors import queue_full
from .request import EngineRequest
from .sequence import Caller, Job


class Inbox:
    """A bounded first-in first-out queue, with the jobs that have left it but can still be stopped."""

    def __init__(self, max_jobs: int, max_bytes: int, poll_period_ms: int) -> None:
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._poll_ns = poll_period_ms * 1_000_000
        self._ready = threading.Condition()
        self._queue: deque[Job] = deque()
        self._fetched: dict[int, Job] = {}
        self._bytes = 0
        self._numbers = 0
        self._closed = False

    # Any thread.

    def submit(self, request: EngineRequest, caller: Caller) -> int:
        """
        Queue a request; returns the executor's number of it.

        Raises:
            EnqueueError: too many wait, or what waits holds too many bytes of weights and tables.
        """
        payload = request.payload_bytes
        with self._ready:
            heavy = bool(self._queue) and self._bytes + payload > self._max_bytes
            if self._closed or heavy or len(self._queue) >= self._max_jobs:
                raise queue_full(self._max_jobs)
            self._numbers += 1
            self._queue.append(Job(self._numbers, request, caller, time.monotonic_ns()))
            self._bytes += payload
            self._ready.notify()
            return self._numbers

    def stop(self, number: int) -> None:
        """Mark a request to be ended at the next step. An unknown number is not an error: it may just have ended."""
        with self._ready:
            job = self._fetched.get(number) or next((job for job in self._queue if job.number == number), None)
            if job is not None:
                job.stopped = True

    def close(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify()

    # The engine's thread.

    @property
    def fetched(self) -> list[Job]:
        """Jobs that were taken and have not ended, oldest first."""
        return list(self._fetched.values())

    def __len__(self) -> int:
        return len(self._queue)

    def wait(self) -> bool:
        """Sleep until there is something to do; False when closed."""
        with self._ready:
            while not (self._queue or self._fetched or self._closed):
                self._ready.wait()
            return not self._closed

    def take(self, max_sequences: int) -> Job | None:
        """The oldest queued job if it fits: it has at most `max_sequences`, or nothing else is being worked on."""
        with self._ready:
            if not self._queue:
                return None
            job = self._queue[0]
            if self._fetched and job.request.num_return_sequences > max_sequences:
                return None
            self._queue.popleft()
            self._bytes -= job.request.payload_bytes
            self._fetched[job.number] = job
            return job

    def end(self, job: Job) -> None:
        """The job is over and cannot be stopped any more."""
        with self._ready:
            self._fetched.pop(job.number, None)

    def gone(self) -> tuple[list[Job], list[Job]]:
        """
        Jobs to be ended because they were stopped or their caller has left, before the first token as well as after.

        Returns:
            those that were queued, now removed, and those that were fetched.
        """
        now = time.monotonic_ns()
        with self._ready:
            queued = [job for job in self._queue if self._due(job, now)]
            fetched = [job for job in self._fetched.values() if self._due(job, now)]
        left_queue = [job for job in queued if job.stopped or job.caller.is_cancelled()]
        if left_queue:
            with self._ready:
                for job in left_queue:
                    self._queue.remove(job)
                    self._bytes -= job.request.payload_bytes
        return left_queue, [job for job in fetched if job.stopped or job.caller.is_cancelled()]

    def drain(self) -> list[Job]:
        """Everything still queued, removed."""
        with self._ready:
            left = list(self._queue)
            self._queue.clear()
            return left

    def _due(self, job: Job, now: int) -> bool:
        """Asking costs a message to the server process, so each caller is asked only once a period."""
        if job.stopped:
            return True
        if job.next_poll_ns > now:
            return False
        job.next_poll_ns = now + self._poll_ns
        return True
