"""What blocks, kept off the event loop: in a thread, and never in more threads than are needed."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_FORKED_POLL_S = 0.005


class _Process:
    """What is known of this process."""

    forked = False
    """Whether it was forked. It has the event loop of its parent then, which has lost its threads and shares what wakes
    it with the parent: a thread that ends may wake the other process."""

    @classmethod
    def note_fork(cls) -> None:
        cls.forked = True


os.register_at_fork(after_in_child=_Process.note_fork)


async def in_thread(function: Callable[..., T], *args: Any) -> T:
    """The result of a blocking function, run in a thread where there can still be threads.

    When the interpreter shuts down, no more threads can be started, but kernels are still being cleaned up.
    """
    if _Process.forked:
        return await result_of(in_daemon(functools.partial(function, *args), "gpu-call"))
    try:
        return await asyncio.to_thread(function, *args)
    except RuntimeError as error:
        if "shutdown" not in str(error):
            raise
        return function(*args)


async def result_of(future: Future[T]) -> T:
    """The result of what runs in a thread."""
    # What ends may not be able to wake this process.
    while _Process.forked and not future.done():  # noqa: ASYNC110
        await asyncio.sleep(_FORKED_POLL_S)
    return await asyncio.wrap_future(future)


def in_daemon(function: Callable[[], T], name: str) -> Future[T]:
    """The result to come of a function that may hang for good: its thread keeps no process from ending.

    Args:
        function: what to run.
        name: the thread's name, for people who debug.
    """
    future: Future[T] = Future()
    try:
        threading.Thread(target=_complete, args=(future, function), daemon=True, name=name).start()
    except RuntimeError:  # the interpreter shuts down
        _complete(future, function)
    return future


class SharedCall(Generic[T]):
    """A function that may hang for good, and of which therefore never more than one call is under way."""

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._name = name
        self._lock = threading.RLock()
        self._call: Future[T] | None = None

    def begin(self) -> Future[T]:
        """The result to come of the call that is under way, or of a new one."""
        with self._lock:
            if self._call is None or self._call.done():
                self._call = in_daemon(self._function, self._name)
            # Each caller gets a future of its own: cancelling one that timed out must not cancel the call.
            mine: Future[T] = Future()
            self._call.add_done_callback(lambda done: _copy(done, mine))
            return mine


def _complete(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
        future.set_exception(error)


def _copy(done: Future[T], copy: Future[T]) -> None:
    if not copy.set_running_or_notify_cancel():
        return
    error = done.exception()
    if error is None:
        copy.set_result(done.result())
    else:
        copy.set_exception(error)
