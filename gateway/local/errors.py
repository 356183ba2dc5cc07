"""
What can keep a local run from starting or end it. Each text is one sentence for the person at the terminal.
"""


class LocalRunError(Exception):
    """The run cannot start or go on; the text says what happened and what to do next."""


class ServiceDied(LocalRunError):
    """A part of the stack ended by itself; `tail` holds the last lines of its log."""

    def __init__(self, text: str, tail: str) -> None:
        super().__init__(text)
        self.tail = tail


class StopAsked(Exception):
    """A signal asked the run to end: Ctrl-C, SIGTERM, or the terminal closed."""
