"""Where the shared files are: local to the host, private to the user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jupyter_gpu.paths import UnsafeDirectory, private_directory, runtime_directory


def test_a_chosen_directory_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_GPU_RUNTIME_DIR", "/somewhere/else")
    assert runtime_directory() == Path("/somewhere/else")


def test_then_the_sessions_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JUPYTER_GPU_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / "jupyter-gpu"


@pytest.mark.parametrize("session", [None, "", "/not/there"])
def test_then_one_for_this_user_among_the_temporary_files(monkeypatch: pytest.MonkeyPatch, session: str | None) -> None:
    monkeypatch.delenv("JUPYTER_GPU_RUNTIME_DIR")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if session is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    assert runtime_directory() == Path(f"/tmp/jupyter-gpu-{os.getuid()}")


def test_it_is_never_in_the_home_directory_and_not_made_by_asking(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("JUPYTER_GPU_RUNTIME_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    assert not runtime_directory().exists()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert tmp_path not in runtime_directory().parents


def test_a_private_directory_is_made_with_its_parents_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = private_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert private_directory(made) == made


@pytest.mark.parametrize("content", [(), ("ledger.sqlite", "accounts")])
def test_one_that_is_open_to_others_is_closed_if_it_is_ours(tmp_path: Path, content: tuple[str, ...]) -> None:
    for name in content:
        (tmp_path / name).touch()
    tmp_path.chmod(0o755)
    private_directory(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("mode", "content"), [(0o755, ("a file",)), (0o1777, ()), (0o1777, ("ledger.sqlite",)), (0o777, ("a", "b"))]
)
def test_one_that_others_may_need_is_refused_and_left_open(tmp_path: Path, mode: int, content: tuple[str, ...]) -> None:
    for name in content:
        (tmp_path / name).touch()
    tmp_path.chmod(mode)
    with pytest.raises(UnsafeDirectory, match="holds other things; set JUPYTER_GPU_RUNTIME_DIR to one for jupyter_gpu"):
        private_directory(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode


def test_a_link_is_refused_even_to_a_good_directory(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "good")
    with pytest.raises(UnsafeDirectory, match="link is not a directory; remove it, or set JUPYTER_GPU_RUNTIME_DIR"):
        private_directory(tmp_path / "link")


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnsafeDirectory, match=r"cannot be made \(File exists\)"):
        private_directory(tmp_path / "file")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give directories away")
def test_another_users_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(UnsafeDirectory, match="belongs to the user with uid 65534, not to this one; set JUPYTER_GPU"):
        private_directory(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="to root nothing is another's")
def test_the_systems_is_refused() -> None:
    with pytest.raises(UnsafeDirectory, match="belongs to the user with uid 0"):
        private_directory(Path("/usr"))
