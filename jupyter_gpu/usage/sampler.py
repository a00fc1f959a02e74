"""The one thread of a server that looks at the devices, while somebody wants to know.

It is the sampler who asks the driver, however many clients there are: they get its last snapshot. It runs while
somebody watches, or a policy needs it, and sleeps otherwise. A driver may hang for good: then the thread hangs with
it, clients go on to get what was seen last, with a sentence that says so, and nothing else waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from traitlets import Float, Instance, Int
from traitlets.config import LoggingConfigurable

from ..background import in_thread
from ..host import DriverSilent, GPUHost
from .history import History
from .observer import IDLE_PERCENT, Observer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..leases.survey import Survey
    from .snapshot import Snapshot

_FRESH_STEPS = 1.5
"""For so many intervals a snapshot is up to date."""


class _Seen(NamedTuple):
    """What came of the last look at the devices."""

    survey: Survey
    at: float
    """When it had ended, by the sampler's clock."""
    took_s: float
    snapshot: Snapshot | None
    """The newest with that survey; `None` until it has been taken."""


class Need:
    """What keeps the sampler running though nobody watches, until it is closed."""

    def __init__(self, sampler: GPUSampler, interval_s: float) -> None:
        self.interval_s = interval_s
        self._sampler = sampler

    def close(self) -> None:
        """Need no more samples."""
        self._sampler.release(self)


class GPUSampler(LoggingConfigurable):
    """Takes snapshots at intervals, while they are wanted.

    Its thread starts with the first wish, and is a daemon, which keeps no process from ending.
    """

    interval_s = Float(
        1.0,
        min=0.1,
        help="""Seconds between two looks at the devices while somebody watches. The driver's own figures change a few
        times a second at most.""",
    ).tag(config=True)
    policy_interval_s = Float(
        5.0, min=0.1, help="The same while nobody watches, but a policy, such as a watchdog, needs to know."
    ).tag(config=True)
    watched_for_s = Float(
        5.0, min=0.1, help="How long after a client has asked, in seconds, it is taken to be watching still."
    ).tag(config=True)
    idle_percent = Float(
        IDLE_PERCENT, min=0.0, max=100.0, help="Up to this utilisation, in percent, a kernel's GPU counts as idle."
    ).tag(config=True)
    fine_points = Int(600, min=2, help="How many samples are remembered as they are, for the charts.").tag(config=True)
    coarse_points = Int(
        720, min=2, help="How many points are remembered of the time before that, each of coarse_step_s."
    ).tag(config=True)
    coarse_step_s = Float(
        60.0, min=1.0, help="Seconds that one such point stands for, with the most memory and the mean utilisation."
    ).tag(config=True)

    host = Instance(GPUHost)

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._clock = clock
        self._observer = Observer(self.host, idle_percent=self.idle_percent)
        self.history = History(
            fine_points=self.fine_points, coarse_points=self.coarse_points, coarse_step_s=self.coarse_step_s
        )
        self._listeners: list[Callable[[Snapshot], None]] = []
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._needs: list[Need] = []
        self._watched_until = 0.0
        self._waiting: list[Future[Snapshot]] = []
        self._began: float | None = None
        """When the look that is under way began; `None` while there is none."""
        self._last_began = float("-inf")
        self._observing = threading.Lock()
        """Held from reading `_seen` until it has been replaced, so that no older look takes the place of a newer."""
        self._seen: _Seen | None = None
        self._last: Snapshot | None = None
        self._observed_at = float("-inf")
        self._failing = False
        self._reported = False

    @property
    def last(self) -> Snapshot | None:
        """The last snapshot, however old; `None` before the first."""
        return self._last

    @property
    def age_s(self) -> float | None:
        """How long ago the devices were last looked at with success, in seconds; `None` if they never were."""
        return None if self._seen is None else max(0.0, self._clock() - self._seen.at)

    def watch(self) -> None:
        """Note that a client has asked: it is watching for a while from now on. Never blocks."""
        with self._condition:
            now = self._clock()
            was_watched, self._watched_until = now < self._watched_until, now + self.watched_for_s
            if not was_watched:
                self._wake()

    def need(self, interval_s: float | None = None) -> Need:
        """Have samples taken, every `interval_s` seconds or as configured for policies, until the need is closed."""
        need = Need(self, interval_s or self.policy_interval_s)
        with self._condition:
            self._needs.append(need)
            self._wake()
        return need

    def release(self, need: Need) -> None:
        """End a need."""
        with self._condition:
            if need in self._needs:
                self._needs.remove(need)

    def listen(self, listener: Callable[[Snapshot], None]) -> None:
        """Call `listener` with every snapshot, in the sampler's thread or another."""
        self._listeners.append(listener)

    def listen_on_loop(self, listener: Callable[[Snapshot], None]) -> None:
        """The same, on the event loop that runs now; for as long as it does."""
        loop = asyncio.get_running_loop()

        def on_snapshot(snapshot: Snapshot) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(listener, snapshot)

        self.listen(on_snapshot)

    def recent(self) -> Snapshot | None:
        """The last snapshot, if it is up to date; `None` if one would have to be waited for. Never blocks."""
        seen = self._seen
        if seen is None or seen.snapshot is None or seen.snapshot.changes != self.host.changes:
            return None
        if seen.snapshot.ledger_problem is not None:
            return None  # it may have been repaired since
        return seen.snapshot if self._is_fresh(seen) else None

    async def watched(self) -> Snapshot:
        """The newest snapshot, for a client that watches: at most one and a half intervals old, if the driver answers.

        Raises:
            DriverSilent: it does not, and nothing was seen before.
        """
        self.watch()
        return await self.current()

    async def current(self) -> Snapshot:
        """The same for one who does not go on watching.

        Raises:
            DriverSilent: the driver does not answer, and nothing was seen before.
        """
        recent = self.recent()
        if recent is not None:
            return recent
        if self._seen is not None and self._is_fresh(self._seen):
            # The devices are as they were a moment ago, but a lease came or went: whoever did that wants to see it.
            return await in_thread(self._observe_again)
        newest = await self._next()
        if newest.stale is None:
            return newest
        # The ledger goes on without the driver, and so do other servers.
        if newest.changes != self.host.changes or self._clock() - self._observed_at > self.interval_s:
            return replace(await in_thread(self._observe_again), stale=newest.stale)
        return newest

    def close(self) -> None:
        """End the thread with the next step, and forget what waits for it. Never blocks."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(DriverSilent("the server is stopping"))

    def _is_fresh(self, seen: _Seen) -> bool:
        """Whether a look is young enough. One of a slow driver is older by as long as it takes."""
        return self._clock() - seen.at <= _FRESH_STEPS * self.interval_s + seen.took_s

    async def _next(self) -> Snapshot:
        """The snapshot of a look that begins now or is under way, or the last one with the reason why there is none."""
        patience_s, began = self.host.survey_timeout_s, self._began
        if began is not None:
            patience_s -= self._clock() - began
        if patience_s > 0:
            future: Future[Snapshot] = Future()
            with self._condition:
                self._waiting.append(future)
                self._wake()
            try:
                return await asyncio.wait_for(asyncio.wrap_future(future), patience_s)
            except asyncio.TimeoutError:
                pass
        return self._stale()

    def _stale(self) -> Snapshot:
        """The last snapshot, with the reason why there is no newer one.

        Raises:
            DriverSilent: there is none.
        """
        now, began, seen = self._clock(), self._began, self._seen
        if began is None and seen is not None and seen.snapshot is not None:
            return seen.snapshot
        silent = f"the GPU driver has not answered for {now - (now if began is None else began):.0f} s"
        if not self._reported:
            self._reported = True
            self.log.warning("%s; clients see what it said last.", silent[:1].upper() + silent[1:])
        if self._last is None or seen is None:
            raise DriverSilent(f"{silent}, and nothing was seen before; `nvidia-smi` may say why")
        reason = f"T{silent[1:]}: the figures are {now - seen.at:.0f} s old. `nvidia-smi` may say why."
        return replace(self._last, stale=reason)

    def _wake(self) -> None:
        """Let the thread see what is wanted. The condition is held."""
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._run, daemon=True, name="gpu-sampler")
            thread.start()
            self._thread = thread
        self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._closed and (pause_s := self._pause_s()) != 0:
                    self._condition.wait(pause_s)
                if self._closed:
                    break
                self._began = self._last_began = self._clock()
            outcome = self._sample()
            with self._condition:
                waiting, self._waiting = self._waiting, []
            for future in waiting:
                if future.set_running_or_notify_cancel():
                    if isinstance(outcome, Exception):
                        future.set_exception(outcome)
                    else:
                        future.set_result(outcome)
        self._observer.close()

    def _pause_s(self) -> float | None:
        """How long until the next look is due; `None` while nobody wants one."""
        if self._waiting:
            return 0.0
        now = self._clock()
        paces = [need.interval_s for need in self._needs]
        if now < self._watched_until:
            paces.append(self.interval_s)
        return max(0.0, self._last_began + min(paces) - now) if paces else None

    def _sample(self) -> Snapshot | Exception:
        """Look, and tell everybody."""
        try:
            survey = self.host.look_now()
            now = self._clock()
            with self._observing:
                self._seen = _Seen(survey, now, now - self._last_began, None)
                snapshot = self._observe(self._seen)
            self.history.add(snapshot)
            self._tell(snapshot)
        except Exception as error:
            if not self._failing:
                self.log.exception("The use of the GPUs could not be worked out.")
            self._failing = True
            return error
        finally:
            self._began = None
        if self._reported:
            self.log.info("The GPU driver answers again.")
        self._reported = self._failing = False
        return snapshot

    def _observe_again(self) -> Snapshot:
        """A snapshot with the leases of now, and the devices as they were."""
        with self._observing:
            recent = self.recent()
            if recent is not None:
                return recent
            assert self._seen is not None
            snapshot = self._observe(self._seen)
        self._tell(snapshot)
        return snapshot

    def _observe(self, seen: _Seen) -> Snapshot:
        snapshot = self._observer.observe(seen.survey)
        self._seen, self._last, self._observed_at = seen._replace(snapshot=snapshot), snapshot, self._clock()
        return snapshot

    def _tell(self, snapshot: Snapshot) -> None:
        for listener in self._listeners:
            try:
                listener(snapshot)
            except Exception:
                self.log.exception("A listener to the GPU samples failed.")
