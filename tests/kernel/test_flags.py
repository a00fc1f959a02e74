"""Theano's flags are read, merged and brought up to date as Theano itself would understand them."""

from __future__ import annotations

import pytest

from jupyter_gpu.kernel.entrance import framework_names
from jupyter_gpu.kernel.environment import Environment
from jupyter_gpu.kernel.flags import Flags
from jupyter_gpu.kernel.frameworks.framework import Limit
from jupyter_gpu.kernel.session import Session


def everything_links(_: str) -> bool:
    return True


def nothing_links(_: str) -> bool:
    return False


def test_the_last_of_a_name_stands() -> None:
    assert Flags.parse("device=cpu,floatX=float32,device=cuda").value("device") == "cuda"


def test_quoted_commas_belong_to_a_value() -> None:
    text = "gcc.cxxflags='-O3,-march=native',device=cpu"
    flags = Flags.parse(text)
    assert flags.value("gcc.cxxflags") == "-O3,-march=native"
    assert str(flags) == text


@pytest.mark.parametrize("text", ["", ",,", "novalue", "=x", "a='open"])
def test_what_is_no_flag_harms_nothing(text: str) -> None:
    assert str(Flags.parse(str(Flags.parse(text)))) == str(Flags.parse(text))


def test_those_of_the_time_become_those_of_theano_1_0() -> None:
    flags, said = Flags.parse("floatX=float32,device=gpu1,fastmath=True,ldflags=-lopenblas,lib.cnmem=0.5").modernised(
        everything_links
    )
    assert str(flags) == "floatX=float32,device=cuda1,blas.ldflags=-lopenblas,gpuarray.preallocate=0.5"
    assert len(said) == 1
    assert "fastmath" in said[0]


def test_an_explicit_new_name_stands_over_the_old_one() -> None:
    flags, _ = Flags.parse("ldflags=-lfoo,blas.ldflags=-lbar").modernised(nothing_links)
    assert str(flags) == "blas.ldflags=-lbar"


def test_a_library_that_is_not_there_is_left_out_and_named() -> None:
    flags, said = Flags.parse("ldflags=-lopenblas").modernised(nothing_links)
    assert flags.value("blas.ldflags") == ""
    assert "-lopenblas" in said[0]


@pytest.mark.parametrize(("name", "variable"), [("aesara", "AESARA_FLAGS"), ("pytensor", "PYTENSOR_FLAGS")])
class TestDescendants:
    def session(self, variable: str, flags: str) -> Session:
        return Session(None, framework_names(), Environment({variable: flags, "JUPYTER_GPU_LEASE": "x"}))

    def test_have_no_gpu_and_keep_the_other_flags(self, name: str, variable: str) -> None:
        session = self.session(variable, "device=cuda,floatX=float32")
        session.before_import(name)
        assert session.environment.value(variable) == "floatX=float32,device=cpu"
        assert "no GPU back end of its own" in session.notices[0]

    def test_say_so_when_asked_for_the_gpu(self, name: str, variable: str) -> None:
        framework = self.session(variable, "").framework(name)
        assert "no GPU back end of its own" in framework.limit(Limit(cpu=False)).remaining[0]
        assert "CPU" in framework.limit(Limit(cpu=True)).done[0]
        assert "JAX" in framework.notes()[0]
