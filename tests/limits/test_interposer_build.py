"""Where the interposer's library comes from, and what is said where there is none."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from jupyter_gpu.limits import interposer

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(directory))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_compiled_on_first_use_and_found_afterwards(cache: Path) -> None:
    before = interposer.status()
    assert not before.usable
    assert before.reason is not None
    assert "not built yet" in before.reason
    path, reason = interposer.library_path()
    assert reason is None
    assert path is not None
    assert path.is_absolute()
    assert path.parent == cache / "jupyter-gpu" / "interposer"
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    assert mode(path) & 0o022 == 0
    built_at = path.stat().st_mtime_ns
    assert interposer.status() == (path, "built", None)
    assert interposer.library_path() == (path, None)
    assert path.stat().st_mtime_ns == built_at
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # nothing of the build is left


def test_without_a_compiler_the_reason_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    path, reason = interposer.library_path()
    assert path is None
    assert reason is not None
    assert "no C compiler" in reason
    assert interposer.status() == (None, None, reason)


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    compiler = tmp_path / "broken-cc"
    compiler.write_text("#!/bin/sh\necho 'fatal error: no space left' >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(interposer.BuildError, match="fatal error: no space left"):
        interposer.build(compiler=str(compiler))


def test_a_library_that_cannot_be_loaded_is_not_preloaded(tmp_path: Path) -> None:
    # A preloaded library of the wrong kind makes every process of the kernel print an error.
    compiler = tmp_path / "careless-cc"
    compiler.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && printf \'no library\' > "$2"; shift; done\nexit 0\n'
    )
    compiler.chmod(0o755)
    with pytest.raises(interposer.BuildError, match="cannot be preloaded here"):
        interposer.build(tmp_path / "place", compiler=str(compiler))


@pytest.mark.parametrize("problem", ["writable by others", "symbolic link"])
def test_a_directory_that_others_may_change_is_not_trusted(problem: str, cache: Path, tmp_path: Path) -> None:
    first = cache / "jupyter-gpu" / "interposer"
    first.parent.mkdir(parents=True, mode=0o700)
    if problem == "symbolic link":
        (tmp_path / "elsewhere").mkdir()
        first.symlink_to(tmp_path / "elsewhere")
    else:
        first.mkdir()
        first.chmod(0o777)
    path, reason = interposer.library_path()
    assert reason is None
    assert path is not None
    assert path.parent == tmp_path / "home" / ".cache" / "jupyter-gpu" / "interposer"
    # Nor is a library that lies ready there.
    shutil.copy(path, first / path.name)
    assert interposer.status().path == path
    with pytest.raises(
        interposer.BuildError, match="may decide" if problem == "symbolic link" else "written by others"
    ):
        interposer.build(first)


def test_a_path_that_ld_preload_cannot_name_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a cache"))
    path, reason = interposer.library_path()
    assert reason is None
    assert path is not None
    assert " " not in str(path)


def test_several_builds_at_once_end_with_one_library(cache: Path) -> None:
    code = "from jupyter_gpu.limits import interposer; print(interposer.library_path())"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)]
    said = {process.communicate(timeout=120)[0] for process in running}
    assert len(said) == 1
    assert len(list((cache / "jupyter-gpu" / "interposer").iterdir())) == 1


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (None, "/x/i.so"),
        ("", "/x/i.so"),
        ("/a.so", "/a.so:/x/i.so"),
        ("/a.so:/b.so", "/a.so:/b.so:/x/i.so"),
        ("/a.so /b.so", "/a.so:/b.so:/x/i.so"),
        ("/x/i.so:/a.so", "/a.so:/x/i.so"),
    ],
)
def test_what_the_user_preloads_comes_first_and_stays(existing: str | None, expected: str) -> None:
    assert interposer.preload_value(Path("/x/i.so"), existing) == expected


def wheel(directory: Path, **environment: str) -> Path:
    """A wheel of a project that has nothing but the interposer, built with the project's own hook."""
    package = directory / "jupyter_gpu" / "limits" / "interposer"
    shutil.copytree(interposer.SOURCES, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "hatch_build.py", directory)
    (directory / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "jupyter-gpu"\nversion = "1"\nrequires-python = ">=3.10"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["jupyter_gpu"]\n'
        '[tool.hatch.build.targets.wheel.hooks.custom]\npath = "hatch_build.py"\n'
    )
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = (directory / "dist").iterdir()
    return built


def test_by_default_the_wheel_is_pure_and_needs_no_compiler(tmp_path: Path) -> None:
    built = wheel(tmp_path / "project", PATH="", CC="/no/such/compiler")
    assert built.name == "jupyter_gpu-1-py3-none-any.whl"
    names = {Path(name).name for name in zipfile.ZipFile(built).namelist()}
    assert {path.name for path in interposer.source_files()} <= names
    assert not any(name.endswith(".so") for name in names)


def test_a_wheel_may_carry_the_library_of_its_platform(tmp_path: Path) -> None:
    built = wheel(tmp_path / "project", JUPYTER_GPU_PREBUILT_INTERPOSER="1")
    assert built.name == f"jupyter_gpu-1-py3-none-{sysconfig.get_platform().replace('-', '_')}.whl"
    place = tmp_path / "installed"
    zipfile.ZipFile(built).extractall(place)
    (place / "jupyter_gpu" / "__init__.py").touch()
    (place / "jupyter_gpu" / "limits" / "__init__.py").touch()
    code = "from jupyter_gpu.limits import interposer; print(interposer.status())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env={"PATH": ""}, capture_output=True, text=True, check=True
    )
    # It is used where it lies, and nothing is compiled.
    assert "origin='shipped'" in done.stdout
    assert str(place) in done.stdout


def test_another_platform_tag_can_be_asked_for(tmp_path: Path) -> None:
    tag = f"manylinux_2_36_{os.uname().machine}"
    environment = {"JUPYTER_GPU_PREBUILT_INTERPOSER": "1", "JUPYTER_GPU_WHEEL_PLATFORM": tag}
    assert wheel(tmp_path / "project", **environment).name == f"jupyter_gpu-1-py3-none-{tag}.whl"
