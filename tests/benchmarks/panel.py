"""What the panel costs in the browser: `python tests/benchmarks/panel.py [--json PATH] [--quick]`.

A real page in a real Chromium shows 8 GPUs with 64 kernels, all of whose figures change each second. What is measured
is the main thread's processor time for each update, from the answer's arrival to the finished frame: parsing, state,
elements, style, layout, paint. It is measured in turns with its floors: the same page with the panel closed, with the
same answer fetched and dropped (which includes what the harness takes to make it up), and with one word of the page
changed besides, which is what any frame costs in JupyterLab.

The extension is built for it as for a release, into a folder of its own.

For the heap ten minutes of updates, each of a second of the fleet's time, are shown ten times as fast.

The goals: 8 ms of main-thread time for an update, no more than three style and layout passes for one, at most 60 KB of
own JavaScript at the start and none of the chart's, and a heap that does not grow.
"""

from __future__ import annotations

import gzip
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[1] / "browser")]

import lab_server  # noqa: E402
from conftest import FLAGS, chromium  # noqa: E402
from figures import Figure, arguments, finish, spread  # noqa: E402
from fleet import Fleet  # noqa: E402
from lab_page import LabPage  # noqa: E402
from lab_server import LabServer  # noqa: E402
from playwright.sync_api import CDPSession, Page, Response, sync_playwright  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

GPUS, KERNELS_PER_GPU = 8, 8
GOAL_MS = 8.0
GOAL_PASSES = 3
GOAL_START_BYTES = 60_000
GOAL_GROWTH_PERCENT = 2.0
HEAP_UPDATES = 600
REMEMBERED = 320
"""After so many updates the points that the page keeps of each kernel do not become more."""
HASTE = 10
"""How much faster than time updates come while the heap is watched."""
TICK_S = 1.0
WARM_UP = 8
"""Updates until the browser has compiled what it runs."""
OWN = re.compile(r"/extensions/jupyter-gpu/static/.*\.js(\?|$)")
CHART = b"u-axis"
"""What is in uPlot, whatever file it is in, and nowhere else."""
HURRY = f"""
  const wait = window.setTimeout;
  window.setTimeout = (act, delay, ...rest) => wait(act, delay >= 500 ? delay / {HASTE} : delay, ...rest);
"""
FETCH = """async word => {
  await (await fetch('/gpu/api/live')).text();
  if (word) {
    document.querySelector('.jp-gpu-StatusItem-button').lastChild.data = word;
  }
}"""


def release(directory: Path) -> Path:
    """The extension built in `directory` as for a release; where it lies."""
    source = lab_server.REPOSITORY / "labextension"
    place = directory / "labextension"
    place.mkdir()
    binaries = source / "node_modules" / ".bin"
    options = ("--project", source, "--outDir", place / "lib", "--incremental", "false", "--sourceMap", "false")
    subprocess.run([binaries / "tsc", *options], check=True)
    for name in ("style", "schema"):
        shutil.copytree(source / name, place / name)
    for name in ("package.json", "install.json", "yarn.lock"):
        shutil.copy(source / name, place)
    (place / "node_modules").symlink_to(source / "node_modules")
    (directory / "jupyter_gpu").mkdir()
    builder = Path(sys.executable).with_name("jupyter-builder")
    subprocess.run([builder, "build", place], check=True, stdout=subprocess.DEVNULL)
    return directory / "jupyter_gpu" / "labextension"


@dataclass(frozen=True)
class Cost:
    """What the main thread did in one tick."""

    task_ms: float
    wall_ms: float
    script_ms: float
    style_ms: float
    layout_ms: float
    style_passes: float
    layout_passes: float


class MainThread:
    """The page's main thread: processor time, and time by the clock, which includes what others took from it."""

    def __init__(self, page: Page) -> None:
        self._processor = self._session(page, "threadTicks")
        self._clock = self._session(page, "timeTicks")
        self._last = self._read()

    def since_last(self) -> Cost:
        """What it did since the last call."""
        now = self._read()
        change = {name: now[name] - self._last[name] for name in now}
        self._last = now
        return Cost(
            task_ms=1000 * change["TaskDuration"],
            wall_ms=1000 * change["wall"],
            script_ms=1000 * change["ScriptDuration"],
            style_ms=1000 * change["RecalcStyleDuration"],
            layout_ms=1000 * change["LayoutDuration"],
            style_passes=change["RecalcStyleCount"],
            layout_passes=change["LayoutCount"],
        )

    def heap_bytes(self) -> float:
        """What JavaScript holds after a collection of garbage."""
        for _ in range(3):
            self._processor.send("HeapProfiler.collectGarbage")
        return self._metrics(self._processor)["JSHeapUsedSize"]

    def _session(self, page: Page, domain: str) -> CDPSession:
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": domain})
        return session

    def _read(self) -> dict[str, float]:
        return {**self._metrics(self._processor), "wall": self._metrics(self._clock)["TaskDuration"]}

    def _metrics(self, session: CDPSession) -> dict[str, float]:
        return {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}


def wait(page: Page, condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Return when the condition holds, letting the page's questions be answered meanwhile."""
    for _ in range(int(timeout_s / 0.02)):
        if condition():
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"in {timeout_s:g} s there was no sign of this: {what}")


def ticks(page: Page, fleet: Fleet, count: int) -> list[Cost]:
    """The cost of each of so many updates."""
    thread = MainThread(page)
    costs = []
    for number in range(count + 1):
        seen = dict(fleet.asked)

        def is_answered(seen: dict[str, int] = seen) -> bool:
            return all(fleet.asked.get(name, 0) > seen.get(name, 0) for name in ("devices", "kernels"))

        wait(page, is_answered, "an update")
        page.wait_for_timeout(400)  # The answers are on their way; until the next update nothing else happens.
        cost = thread.since_last()
        if number:  # The first began before it was measured.
            costs.append(cost)
    return costs


def idle(page: Page, count: int, *acts: Callable[[], object]) -> list[list[Cost]]:
    """For each of the acts the costs of so many seconds without the panel, in each of which it is done; in turns."""
    thread = MainThread(page)
    costs: list[list[Cost]] = [[] for _ in acts]
    for _ in range(count):
        for act, found in zip(acts, costs, strict=True):
            act()
            page.wait_for_timeout(1000 * TICK_S)
            found.append(thread.since_last())
    return costs


def median(costs: list[Cost], of: str) -> float:
    return statistics.median(getattr(cost, of) for cost in costs)


def report(title: str, costs: list[Cost]) -> None:
    figures = [f"{median(costs, of):8.2f}" for of in ("task_ms", "wall_ms", "script_ms", "style_ms", "layout_ms")]
    passes = [f"{median(costs, of):7.1f}" for of in ("style_passes", "layout_passes")]
    worst = max(cost.task_ms for cost in costs)
    print(f"{title:<34}{''.join(figures)}{''.join(passes)}{worst:9.2f}")


def show_panel(page: Page, shown: bool) -> None:
    panel = page.locator("#jupyter-gpu-panel")
    if panel.is_visible() != shown:
        page.get_by_role("tab", name="GPUs").click()
        panel.wait_for(state="visible" if shown else "hidden")


def updates(page: Page, fleet: Fleet, count: int, rounds: int) -> list[Figure]:
    """What one update costs."""
    shown: list[Cost] = []
    floor: list[Cost] = []
    received: list[Cost] = []
    frames: list[Cost] = []
    each = max(1, count // rounds)
    for _ in range(rounds):
        show_panel(page, True)
        ticks(page, fleet, WARM_UP)
        shown += ticks(page, fleet, each)
        show_panel(page, False)
        page.wait_for_timeout(1000)
        words = map(str, range(1000))
        nothing, fetched, changed = idle(
            page,
            max(3, each // 2),
            lambda: None,
            lambda: page.evaluate(FETCH, ""),
            lambda words=words: page.evaluate(FETCH, next(words)),
        )
        floor += nothing
        received += fetched
        frames += changed
    print(f"{len(shown)} updates of {GPUS} GPUs and {GPUS * KERNELS_PER_GPU} kernels, medians in ms for each second")
    columns = "".join(f"{name:>8}" for name in ("task", "clock", "script", "style", "layout"))
    print(f"{'':<34}{columns}{'styles':>7}{'layouts':>7}{'worst':>9}")
    report("panel open", shown)
    report("floor: panel closed", floor)
    report("floor: the answer fetched", received)
    report("floor: fetched, one word changed", frames)
    fetching_ms = median(received, "task_ms")
    costs_ms = [cost.task_ms - fetching_ms for cost in shown]
    update_ms = statistics.median(costs_ms)
    least_ms = median(frames, "task_ms") - fetching_ms
    passes = [cost.layout_passes - median(floor, "layout_passes") for cost in shown]
    return [
        Figure(
            name=f"panel: one update of {GPUS * KERNELS_PER_GPU} kernels, main thread",
            measured=f"{update_ms:.2f} ms",
            against=f"a frame with one word changed {least_ms:.2f} ms",
            ratio=update_ms / least_ms if least_ms > 0 else None,
            spread=spread(costs_ms, 1, " ms"),
            goal=f"at most {GOAL_MS:g} ms",
            met=update_ms <= GOAL_MS,
        ),
        Figure(
            name="panel: layout passes in one update",
            measured=f"{statistics.median(passes):.1f}",
            against="none without an update",
            ratio=None,
            spread=spread(passes, 0),
            goal=f"at most {GOAL_PASSES}",
            met=statistics.median(passes) <= GOAL_PASSES,
        ),
    ]


def heap(page: Page, fleet: Fleet, count: int) -> Figure:
    """How the heap changes in so many updates, once as many have been as are remembered for the sparklines."""
    show_panel(page, True)
    thread = MainThread(page)

    def look(number: int) -> float:
        end = fleet.asked.get("kernels", 0) + number
        wait(page, lambda: fleet.asked.get("kernels", 0) >= end, f"{number} updates", 600)
        return thread.heap_bytes()

    sizes = [look(min(count, REMEMBERED))]
    sizes += [look(count // 4) for _ in range(4)]
    growth = 100 * (sizes[-1] - sizes[0]) / sizes[0]
    listed = ", ".join(f"{size / 1e6:.2f}" for size in sizes)
    print(f"heap over {count} updates, {HASTE} times as fast as time: {listed} MB")
    return Figure(
        name=f"panel: growth of the heap in {count} updates (accelerated {HASTE} times)",
        measured=f"{growth:+.2f} %",
        against=f"at first {sizes[0] / 1e6:.1f} MB",
        ratio=sizes[-1] / sizes[0],
        spread=f"{min(sizes) / 1e6:.2f} to {max(sizes) / 1e6:.2f} MB",
        goal=f"at most {GOAL_GROWTH_PERCENT:g} %",
        met=growth <= GOAL_GROWTH_PERCENT,
    )


def start(responses: list[Response]) -> Figure:
    """What JavaScript of ours a page loads at its start."""
    sizes = {response.url.rsplit("/", 1)[1].split("?")[0]: response.body() for response in responses}
    total = sum(len(gzip.compress(body)) for body in sizes.values())
    for name, body in sizes.items():
        print(f"  {name:<50}{len(body):>9} bytes{len(gzip.compress(body)):>8} gzipped")
    charts = [name for name, body in sizes.items() if CHART in body]
    return Figure(
        name="panel: own JavaScript at the start, gzipped",
        measured=f"{total / 1000:.1f} KB",
        against="of which the chart's " + (", ".join(charts) or "none"),
        ratio=None,
        spread="",
        goal=f"at most {GOAL_START_BYTES / 1000:g} KB, without the chart's",
        met=total <= GOAL_START_BYTES and not charts,
    )


def measure(count: int = 30, rounds: int = 3, heap_updates: int = HEAP_UPDATES, width: int = 1500) -> list[Figure]:
    """All of it.

    Args:
        count: of how many updates to take the median.
        rounds: in how many turns with the floors.
        heap_updates: for how many to watch the heap.
        width: of the window, in pixels.
    """
    fleet = Fleet(GPUS, [KERNELS_PER_GPU] * GPUS, restless=True)
    hasty = Fleet(GPUS, [KERNELS_PER_GPU] * GPUS, restless=True)
    with tempfile.TemporaryDirectory(prefix="jg-") as directory, sync_playwright() as playwright:
        home = Path(directory)
        lab_server.LABEXTENSION = release(home)
        server = LabServer(home, home / "gpu", simulate=None)
        server.start()
        browser = playwright.chromium.launch(executable_path=chromium(playwright.chromium.executable_path), args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": width, "height": 900})
            responses: list[Response] = []
            page.on("response", lambda response: responses.append(response) if OWN.search(response.url) else None)
            fleet.route(page)
            LabPage(page, server).open()
            page.wait_for_timeout(3000)
            figures = [start(responses), *updates(page, fleet, count, rounds)]
            page.close()
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.add_init_script(HURRY)
            hasty.route(page)
            LabPage(page, server).open()
            figures.append(heap(page, hasty, heap_updates))
        finally:
            browser.close()
            server.stop()
    return figures


def main() -> int:
    """Measure; 0 where the goals are met."""
    options = arguments(__doc__).parse_args()
    return finish(measure(6, 1, 60) if options.quick else measure(), options)


if __name__ == "__main__":
    sys.exit(main())
