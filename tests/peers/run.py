"""Other projects' own tests, as they are and with us in the way: what passes there has to pass here.

    python tests/peers/run.py                          # all of it, about forty minutes on two cores
    python tests/peers/run.py nbclient --jobs 3        # one project, three runs at once; the table keeps the others

The tests are those of jupyter_client, jupyter_server and nbclient, from the source distributions of the versions that
are installed, which are fetched from the package index into `.cache/peers`. Each project is run three times: stock;
with our provisioner as the default and our extension loaded on simulated GPUs; and so on a host without any GPU.
A test that does not pass is given a second try on its own, in every run alike.

The exit status is 1 if a test that passes stock does not pass with us. The table is written to RESULTS.md beside this.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree as ET

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "peers"
RESULTS = HERE / "RESULTS.md"
sys.path.insert(0, str(ROOT / "tests" / "support"))

from kernel_environments import RECIPES, Recipe, environment_python  # noqa: E402 - it stands beside, not in a package

_RUN_TIMEOUT_S = 5400
_TEST_TIMEOUT_S = 300
_MOST_RETRIED = 40
_ENDING_S = 10.0
"""For so long kernels may outlive the tests that left them: they look whether their parent is there now and then."""
_OURS = CACHE / "ours"
_READ_LEDGER = """
import sqlite3, sys, time
from pathlib import Path
from jupyter_gpu.leases.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
patience = time.monotonic() + float(sys.argv[2])
while True:
    ledger.drop_dead()
    left = len(ledger.leases())
    if not left or time.monotonic() > patience:
        break
    time.sleep(0.5)
[[taken]] = sqlite3.connect(ledger.store.path).execute("SELECT total(seq) FROM sqlite_sequence WHERE name = 'leases'")
print(int(taken), left)
"""


@dataclass(frozen=True)
class Project:
    """One project's tests."""

    name: str
    tests: tuple[str, ...]
    options: tuple[str, ...] = ()
    """What its tests need of pytest beside its own configuration."""
    routed: bool = True
    """Whether kernels come to us through JUPYTER_DEFAULT_PROVISIONER_NAME. If not, the extension does it."""


PROJECTS = (
    Project("jupyter_client", ("tests",), ("-p", "no:asyncio")),
    Project(
        "jupyter_server",
        (
            "tests/services/kernels",
            "tests/services/sessions",
            "tests/services/kernelspecs",
            "tests/services/api",
            "tests/services/events",
            "tests/extension",
            "tests/test_gateway.py",
        ),
        # Newer Tornado warns of what some of them use, and their warnings are errors.
        ("-p", "no:asyncio", "-W", "ignore::DeprecationWarning:tornado.httputil"),
        routed=False,
    ),
    # Its pytest-asyncio warns of a setting that it does not make, and its warnings are errors.
    Project("nbclient", ("tests",), ("-o", "asyncio_default_fixture_loop_scope=function")),
)

INHERENT = {
    "test_app::test_stop_extension": "It counts the extensions that are loaded, and ours is one more.",
}
"""Tests that cannot pass with us, by the end of their name, with the reason."""


@dataclass(frozen=True)
class Mode:
    """One way to run them."""

    name: str
    title: str
    ours: bool
    variables: dict[str, str] = field(default_factory=dict)


MODES = (
    Mode("stock", "stock", ours=False),
    Mode("simulated", "ours, 8 simulated GPUs", True, {"JUPYTER_GPU_SIMULATE": "8xNVIDIA A100-SXM4-40GB:40GiB"}),
    Mode("no-gpu", "ours, no GPU", ours=True),
)


@dataclass
class Outcome:
    """What one run of one project gave."""

    tests: dict[str, str]
    """`passed`, `failed`, `error` or `skipped` by the test's name."""
    seconds: float
    retried: set[str] = field(default_factory=set)
    """Those that passed at the second try."""
    leases_taken: int | None = None
    """How many leases the tests' kernels were given or waited for, in all tries."""
    leases_left: int | None = None
    """How many of them were still there once the tests had ended."""

    @classmethod
    def load(cls, path: Path) -> Outcome:
        """What `save` has written."""
        content = json.loads(path.read_text())
        return cls(**{**content, "retried": set(content["retried"])})

    def save(self, path: Path) -> None:
        """Keep it for the table of a later run of other projects."""
        path.write_text(json.dumps({**asdict(self), "retried": sorted(self.retried)}))

    def count(self, *states: str) -> int:
        return sum(state in states for state in self.tests.values())


class Runner:
    """Runs tests in an environment that has the projects and their tests' requirements, with us on top if asked."""

    def __init__(self, projects: tuple[Project, ...]) -> None:
        versions = {name: metadata.version(name) for name in ("jupyter_client", "jupyter_server", "nbclient")}
        own = ("nvidia-ml-py", "psutil", "pytest-timeout")
        RECIPES["peers-tests"] = Recipe(
            f"{sys.version_info.major}.{sys.version_info.minor}",
            (*(f"{name}[test]=={version}" for name, version in versions.items()), *own),
        )
        self.python = environment_python("peers-tests")
        self.versions = versions
        self._sources = {project.name: self._source(project.name) for project in projects}
        self._install_ours()

    def run(self, project: Project, mode: Mode) -> Outcome:
        """Run all the project's tests, and those that did not pass once more."""
        with tempfile.TemporaryDirectory(prefix="jg-") as short, tarfile.open(self._sources[project.name]) as archive:
            # A copy of its own, since tests write where they are.
            archive.extractall(short, filter="data")
            directory = Path(short) / f"{project.name}-{self.versions[project.name]}"
            runtime = Path(short) / "runtime"
            outcome = self._pytest(project, mode, directory, runtime, project.tests)
            again = {name for name, state in outcome.tests.items() if state in ("failed", "error")}
            if 0 < len(again) <= _MOST_RETRIED:
                files = sorted({_file(name, directory) for name in again})
                words = " or ".join(sorted({name.rpartition("::")[2].partition("[")[0] for name in again}))
                second = self._pytest(project, mode, directory, runtime, (*files, "-k", words), "-second")
                outcome.retried = {name for name in again if second.tests.get(name) == "passed"}
                outcome.tests.update(dict.fromkeys(outcome.retried, "passed"))
            if mode.ours:
                outcome.leases_taken, outcome.leases_left = self._leases(runtime)
            outcome.save(self.outcome_path(project, mode))
            return outcome

    def outcome_path(self, project: Project, mode: Mode) -> Path:
        """Where the outcome of the last run with these versions is."""
        return CACHE / f"{project.name}-{self.versions[project.name]}-{mode.name}.json"

    def _pytest(
        self, project: Project, mode: Mode, directory: Path, runtime: Path, tests: tuple[str, ...], suffix: str = ""
    ) -> Outcome:
        report = CACHE / f"{project.name}-{mode.name}{suffix}.xml"
        report.unlink(missing_ok=True)
        command = [
            str(self.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "log_cli=false", "--color=no",
            f"--junitxml={report}", f"--timeout={_TEST_TIMEOUT_S}", "--timeout-method=signal", *project.options,
            "-p", "patience", *(("-p", "with_ours") if mode.ours else ()), *tests,
        ]  # fmt: skip
        with report.with_suffix(".log").open("wb") as log:
            subprocess.run(
                command,
                cwd=directory,
                env=self._environment(project, mode, runtime),
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=_RUN_TIMEOUT_S,
                check=False,
            )
        if not report.exists():
            raise SystemExit(f"{project.name}, {mode.title}: the tests did not run; see {report.with_suffix('.log')}")
        return _read(report)

    def _environment(self, project: Project, mode: Mode, runtime: Path) -> dict[str, str]:
        left_out = ("JUPYTER", "CUDA_", "PYTEST", "PYTHON", "VIRTUAL_ENV", "NVML")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        variables["PATH"] = f"{self.python.parent}{os.pathsep}{variables.get('PATH', os.defpath)}"
        variables["PYTHONPATH"] = str(HERE)
        if mode.ours:
            variables |= mode.variables
            variables["PYTHONPATH"] += f"{os.pathsep}{_OURS}"
            variables["JUPYTER_GPU_RUNTIME_DIR"] = str(runtime)
            if project.routed:
                variables["JUPYTER_DEFAULT_PROVISIONER_NAME"] = "gpu-provisioner"
        return variables

    def _leases(self, runtime: Path) -> tuple[int, int]:
        """How many leases the tests took, and how many are left."""
        done = subprocess.run(
            [str(self.python), "-c", _READ_LEDGER, str(runtime), str(_ENDING_S)],
            env={**os.environ, "PYTHONPATH": str(_OURS)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        taken, left = done.stdout.split()
        return int(taken), int(left)

    def _source(self, name: str) -> Path:
        """The source distribution of the installed version, fetched if it is not there."""
        CACHE.mkdir(parents=True, exist_ok=True)
        archive = CACHE / f"{name}-{self.versions[name]}.tar.gz"
        if not archive.exists():
            print(f"fetching {archive.name} …", flush=True)
            wanted = f"{name}=={self.versions[name]}"
            self._pip("download", "--no-deps", "--no-binary", name, "--dest", str(CACHE), wanted)
        return archive

    def _install_ours(self) -> None:
        """Our wheel as the tree is now, in a folder of its own, so that a stock run knows nothing of it."""
        shutil.rmtree(_OURS, ignore_errors=True)
        self._pip("install", "--no-deps", "--target", str(_OURS), str(ROOT), HATCH_JUPYTER_BUILDER_SKIP_NPM="1")

    def _pip(self, *arguments: str, **variables: str) -> None:
        command = [str(self.python), "-m", "pip", arguments[0], "--quiet", *arguments[1:]]
        subprocess.run(command, env={**os.environ, **variables}, check=True)


def _read(report: Path) -> Outcome:
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    tests = {}
    for case in suite.iter("testcase"):
        kinds = {child.tag for child in case}
        state = next((word for word in ("error", "failure", "skipped") if word in kinds), "passed")
        tests[f"{case.get('classname')}::{case.get('name')}"] = "failed" if state == "failure" else state
    return Outcome(tests, float(suite.get("time", "0")))


def _file(name: str, directory: Path) -> str:
    """The file of a test, whose name begins with it and, after it, may have classes."""
    words = name.partition("::")[0].split(".")
    while words and not directory.joinpath(*words).with_suffix(".py").exists():
        words.pop()
    return str(Path(*words).with_suffix(".py")) if words else "tests"


def _differences(stock: Outcome, ours: Outcome) -> dict[str, tuple[str, str]]:
    """The tests that end otherwise, with how."""
    return {
        name: (stock.tests.get(name, "not there"), ours.tests.get(name, "not there"))
        for name in sorted(stock.tests.keys() | ours.tests.keys())
        if stock.tests.get(name) != ours.tests.get(name)
    }


def _reason(name: str) -> str | None:
    return next((reason for end, reason in INHERENT.items() if name.partition("[")[0].endswith(end)), None)


def _written(outcomes: dict[tuple[str, str], Outcome], versions: dict[str, str]) -> tuple[str, bool]:
    """The results as Markdown, and whether everything that passes stock passes with us."""
    lines = [
        "# Other projects' tests, stock and with jupyter_gpu",
        "",
        (
            f"Written by `tests/peers/run.py` on Python {platform.python_version()}, {platform.system()} "
            f"{platform.machine()}. Leases are those that the tests' kernels took, and what is left of them in the "
            f"ledger of processes that still live {_ENDING_S:g} seconds after the tests have ended."
        ),
        "",
        "| tests of | run | passed | failed | skipped | at the second try | leases taken | left |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (name, mode_name), outcome in outcomes.items():
        title = next(mode.title for mode in MODES if mode.name == mode_name)
        leases = ["" if each is None else str(each) for each in (outcome.leases_taken, outcome.leases_left)]
        lines.append(
            f"| {name} {versions[name]} | {title} | {outcome.count('passed')} | {outcome.count('failed', 'error')} | "
            f"{outcome.count('skipped')} | {len(outcome.retried)} | {' | '.join(leases)} |"
        )
    lines += ["", "## Tests that end otherwise than stock", ""]
    good, found = True, False
    for (name, mode_name), ours in outcomes.items():
        stock = outcomes.get((name, "stock"))
        if mode_name == "stock" or stock is None:
            continue
        for test, (before, after) in _differences(stock, ours).items():
            found, reason = True, _reason(test)
            good = good and (before != "passed" or reason is not None)
            lines.append(f"- {name}, {mode_name}: `{test}`: {before}, {after}. {reason or ''}".rstrip())
    if not found:
        lines.append("None.")
    failing = [
        f"- {name}: `{test}`: {state}"
        for (name, mode_name), outcome in outcomes.items()
        if mode_name == "stock"
        for test, state in outcome.tests.items()
        if state in ("failed", "error")
    ]
    lines += ["", "## Tests that do not pass stock", "", *(failing or ["None."]), ""]
    return "\n".join(lines), good


def main() -> int:
    """Run what the command line names. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("projects", nargs="*", help="default: all", metavar="PROJECT")
    parser.add_argument("--mode", action="append", choices=[mode.name for mode in MODES], help="default: all")
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at once; default: 1")
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    options = parser.parse_args()
    unknown = set(options.projects) - {project.name for project in PROJECTS}
    if unknown:
        parser.error(f"there is no project {min(unknown)}; there are {', '.join(each.name for each in PROJECTS)}")
    projects = tuple(each for each in PROJECTS if not options.projects or each.name in options.projects)
    modes = [each for each in MODES if not options.mode or each.name in options.mode]
    runner = Runner(projects)

    def run(project: Project, mode: Mode) -> Outcome:
        outcome = runner.run(project, mode)
        counts = f"{outcome.count('passed')} passed, {outcome.count('failed', 'error')} failed"
        print(f"{project.name}, {mode.title}: {counts} in {outcome.seconds:.0f} s", flush=True)
        return outcome

    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {(each.name, mode.name): pool.submit(run, each, mode) for each in projects for mode in modes}
    outcomes = {key: future.result() for key, future in futures.items()}
    for key in ((each, mode) for each in PROJECTS for mode in MODES):
        path = runner.outcome_path(*key)
        if (key[0].name, key[1].name) not in outcomes and path.exists():
            outcomes[key[0].name, key[1].name] = Outcome.load(path)
    order = [(each.name, mode.name) for each in PROJECTS for mode in MODES]
    outcomes = {key: outcomes[key] for key in order if key in outcomes}
    text, good = _written(outcomes, runner.versions)
    print(f"\n{text}")
    if not options.no_write:
        RESULTS.write_text(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
