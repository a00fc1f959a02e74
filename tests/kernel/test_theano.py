"""Theano 1.0.5 in kernels of an environment of its own, with its own optimiser and compiler.

Where a device is needed to go on, pygpu is a thin stand-in (`tests/support/pygpu_stand_in`): Theano plans for the GPU
on it as it would on a real one, so that Gpu operations appear in its graphs, and disappear.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_environments import ENVIRONMENTS
from magic_kernel import MagicKernel, StartKernel, leased, magic_kernel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GIB = 1 << 30
STAND_IN = Path(__file__).parents[1] / "support" / "pygpu_stand_in"
OF_THE_TIME = "floatX=float32,device=cpu,fastmath=True,ldflags=-lopenblas"
PLAN = """
import numpy as np, theano, theano.tensor as T
from theano.gof import FunctionGraph, Query
from theano.compile import optdb
def planned():
    "The operations that Theano would compile now, in its default mode."
    x = T.fmatrix()
    graph = FunctionGraph([x], [T.exp(x) * 2 + x.sum()], clone=True)
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optdb.query(Query(include=["fast_run"])).optimize(graph)
    return [type(node.op).__name__ for node in graph.toposort()]
def operations(function):
    return [type(node.op).__name__ for node in function.maker.fgraph.toposort()]
"""


@pytest.fixture
def theanorc(tmp_path: Path) -> dict[str, str]:
    """A Theano that keeps what it compiles for the next run, and otherwise has no configuration."""
    path = tmp_path / "theanorc"
    path.write_text(f"[global]\nbase_compiledir = {ENVIRONMENTS / 'theano' / 'compiled'}\n[blas]\nldflags =\n")
    return {"THEANORC": str(path), "CUDA_LAUNCH_BLOCKING": "0"}


@pytest.fixture
def openblas(theano_python: Path, tmp_path: Path) -> dict[str, str]:
    """The OpenBLAS that SciPy brings, where the linker finds it under its usual name."""
    [library] = (theano_python.parents[1] / "lib").glob("python3.11/site-packages/scipy.libs/libopenblas*.so")
    directory = tmp_path / "blas"
    directory.mkdir()
    (directory / "libopenblas.so").symlink_to(library)
    for needed in library.parent.iterdir():
        (directory / needed.name).symlink_to(needed)
    # The linker looks in the one for the name, the loader in the other for SciPy's own.
    return {"LIBRARY_PATH": str(directory), "LD_LIBRARY_PATH": str(directory)}


class TestFlagsOfTheTime:
    def test_work_as_they_were_written(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path,
        theanorc: dict[str, str], openblas: dict[str, str],
    ) -> None:  # fmt: skip
        kernel = start_kernel(theano_python, variables={**leased(tmp_path, 8 * GIB), **theanorc, **openblas})
        kernel.ok(f"import os\nos.environ['THEANO_FLAGS'] = {OF_THE_TIME!r}")
        imported = kernel.ok("import theano")
        assert "does not recognise" not in imported.stderr
        assert kernel.value("[theano.config.floatX, theano.config.device, theano.config.blas.ldflags]") == [
            "float32", "cpu", "-lopenblas",
        ]  # fmt: skip
        kernel.ok(PLAN + "a, b = T.fmatrix('a'), T.fmatrix('b')\nf = theano.function([a, b], T.dot(a, b))")
        assert kernel.value("[node.op.c_libraries() for node in f.maker.fgraph.toposort()]") == [["openblas"]]
        assert (
            kernel.value("f(np.full((2, 3), 2, 'float32'), np.full((3, 2), 7, 'float32')).tolist()") == [[42, 42]] * 2
        )
        assert "Theano 1.0 has no flag fastmath any more" in kernel.ok("%gpu").text

    def test_without_the_library_theano_works_and_says_what_is_missing(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        variables = {
            **leased(tmp_path, 8 * GIB),
            **theanorc,
            "LIBRARY_PATH": "",
            "THEANO_FLAGS": OF_THE_TIME.replace("openblas", "noblas"),
        }
        kernel = start_kernel(theano_python, variables=variables)
        kernel.ok("import theano")
        assert kernel.value("theano.config.blas.ldflags") == ""
        assert "The linker finds nothing for ldflags=-lnoblas" in kernel.ok("%gpu").text

    def test_can_be_given_to_the_magic(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        kernel = start_kernel(theano_python, variables={**leased(tmp_path, 8 * GIB), **theanorc})
        said = kernel.ok("%gpu theano floatX=float32,device=gpu0,blas.ldflags=,openmp=False").text
        assert "THEANO_FLAGS=floatX=float32,device=cuda0,blas.ldflags=,openmp=False when Theano is imported" in said
        assert kernel.value("os.environ['THEANO_FLAGS']", "import os").startswith("floatX=float32,device=cuda0")


class TestBeforeTheImport:
    def test_cpu_is_merged_with_the_users_flags(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        flags = "device=gpu,floatX=float32,lib.cnmem=0.8,contexts=dev0->cuda0"
        kernel = start_kernel(theano_python, variables={**leased(tmp_path, 8 * GIB), **theanorc, "THEANO_FLAGS": flags})
        said = kernel.ok("%gpu theano cpu").text
        assert "Theano runs on the CPU" in said
        kernel.ok("import theano")
        assert kernel.value("[theano.config.device, theano.config.floatX]") == ["cpu", "float32"]
        assert kernel.value("theano.config.contexts") == ""

    def test_by_configuration_theano_goes_to_the_cpu_and_says_so(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        variables = {
            **leased(tmp_path, 8 * GIB),
            **theanorc,
            "JUPYTER_GPU_SHARES": "theano=cpu",
            "THEANO_FLAGS": "device=cuda",
        }
        kernel = start_kernel(theano_python, variables=variables)
        kernel.ok("import theano")
        assert kernel.value("theano.config.device") == "cpu"
        assert "Theano was asked for device=cuda and goes to the CPU, as configured" in kernel.ok("%gpu").text

    def test_by_configuration_theano_gets_its_share(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        variables = {
            **leased(tmp_path, 8 * GIB), **theanorc, "PYTHONPATH": str(STAND_IN),
            "JUPYTER_GPU_SHARES": "theano=25%", "THEANO_FLAGS": "device=cuda,dnn.enabled=False",
        }  # fmt: skip
        kernel = start_kernel(theano_python, variables=variables)
        kernel.ok("import theano, pygpu")
        assert kernel.value("[o[0] for o in pygpu.opened]") == ["cuda"]
        # libgpuarray counts more than 1 as MiB.
        assert kernel.value("pygpu.opened[0][1]['initial_cache_size']") == 2048
        assert kernel.value("theano.gpuarray.init_dev.devmap['cuda'].devname") == "Stand-in GPU"

    def test_in_a_kernel_without_a_gpu_it_goes_to_the_cpu(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        kernel = start_kernel(theano_python, variables={**leased(tmp_path), **theanorc, "THEANO_FLAGS": "device=cuda"})
        kernel.ok("import theano")
        assert kernel.value("theano.config.device") == "cpu"
        assert "because this kernel has no GPU" in kernel.ok("%gpu").text


class TestAfterTheImportWithoutADevice:
    def test_cpu_takes_the_gpu_optimisations_out_again(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        kernel = start_kernel(
            theano_python, variables={**leased(tmp_path, 8 * GIB), **theanorc, "THEANO_FLAGS": "floatX=float32"}
        )
        tags = (
            "[sum(o in optdb.__db__.get(t, ()) for o in optdb.__db__.get(n, ())) for n, t in"
            " (('gpuarray_opt', 'fast_run'), ('gpuarray_opt', 'fast_compile'),"
            " ('gpua_scanOp_make_inplace', 'fast_run'))]"
        )
        kernel.ok(PLAN)
        assert kernel.value(tags) == [0, 0, 0]
        kernel.ok("import theano.gpuarray\ntheano.gpuarray.use('')\ntheano.gpuarray.use('')")
        assert kernel.value(tags) == [1, 1, 1]
        assert kernel.run("theano.shared(np.ones(2, 'float32'))").error is not None
        said = kernel.ok("%gpu theano cpu").text
        assert "Theano compiles for the CPU from now on" in said
        assert "shared variables that were made on the GPU stay there" in said
        assert kernel.value(tags) == [0, 0, 0]
        kernel.ok(
            "x = T.fmatrix()\nw = theano.shared(np.full((2, 2), 3, 'float32'))\n"
            "f = theano.function([x], T.exp(x) * w + x.sum())"
        )
        assert not [name for name in kernel.value("operations(f)") if "Gpu" in name]
        assert kernel.value("type(w).__name__") == "TensorSharedVariable"
        assert kernel.value("f(np.zeros((2, 2), 'float32')).tolist()") == [[3.0, 3.0], [3.0, 3.0]]
        assert kernel.value(
            "bool(np.allclose(f(x0), np.exp(x0) * 3 + x0.sum()))", "x0 = np.arange(4, dtype='float32').reshape(2, 2)"
        )
        assert "Theano compiles for the CPU." in kernel.ok("%gpu theano cpu").text

    def test_gpu_without_pygpu_says_what_it_needs(
        self, start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
    ) -> None:
        kernel = start_kernel(theano_python, variables={**leased(tmp_path, 8 * GIB), **theanorc})
        kernel.ok("import theano, theano.gpuarray")
        assert "needs the package pygpu (0.7)" in kernel.ok("%gpu theano gpu").text


class TestAfterTheImportWithADevice:
    @pytest.fixture
    def kernel(self, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]) -> Iterator[MagicKernel]:
        variables = {
            **leased(tmp_path, 8 * GIB), **theanorc, "PYTHONPATH": str(STAND_IN),
            "THEANO_FLAGS": "floatX=float32,device=cuda,dnn.enabled=False",
        }  # fmt: skip
        with magic_kernel(theano_python, variables=variables) as running:
            running.ok(PLAN)
            yield running

    def test_gpu_operations_disappear_and_come_back(self, kernel: MagicKernel) -> None:
        assert "GpuElemwise" in kernel.value("planned()")
        assert kernel.value("type(theano.shared(np.ones(2, 'float32'))).__name__") == "GpuArraySharedVariable"
        assert "compiles for = the GPU" in kernel.ok("%gpu theano").text
        assert (
            kernel.value("_e.framework('theano').cuda_up()", "_e = get_ipython()._jupyter_gpu_entrance.session") is True
        )

        kernel.ok("%gpu theano cpu")
        assert not [name for name in kernel.value("planned()") if "Gpu" in name]
        assert kernel.value("type(theano.shared(np.ones(2, 'float32'))).__name__") == "TensorSharedVariable"
        kernel.ok("x = T.fmatrix()\nf = theano.function([x], T.exp(x) * 2 + x.sum())")
        assert not [name for name in kernel.value("operations(f)") if "Gpu" in name]
        assert kernel.value("f(np.zeros((1, 2), 'float32')).tolist()") == [[2.0, 2.0]]
        assert "compiles for = the CPU" in kernel.ok("%gpu theano").text

        assert "compiles for the GPU again" in kernel.ok("%gpu theano gpu").text
        assert "GpuElemwise" in kernel.value("planned()")
        assert kernel.value("len(pygpu.opened)", "import pygpu") == 1

    def test_what_it_holds_and_why_devices_cannot_change_are_told(self, kernel: MagicKernel) -> None:
        [held] = kernel.value("[h for f in s['frameworks'] if f['name'] == 'theano' for h in f['holds']]", "s = %gpu")
        assert held["cached_bytes"] == GIB
        assert "of all processes" in held["reason"]
        assert kernel.value("get_ipython()._jupyter_gpu_entrance.session.cuda_reasons()") == [
            "Theano has started CUDA in this kernel."
        ]

    def test_flags_of_other_things_hold_only_after_a_restart(self, kernel: MagicKernel) -> None:
        said = kernel.ok("%gpu theano device=cpu,floatX=float64").text
        assert "compiles for the CPU from now on" in said
        assert "floatX can hold only after a restart" in said


def test_theano_imported_before_we_could_see_it_goes_to_the_cpu_all_the_same(
    start_kernel: StartKernel, theano_python: Path, tmp_path: Path, theanorc: dict[str, str]
) -> None:
    variables = {
        **leased(tmp_path, 8 * GIB), **theanorc, "PYTHONPATH": f"{STAND_IN}{os.pathsep}{tmp_path}",
        "THEANO_FLAGS": "device=cuda,dnn.enabled=False", "JUPYTER_GPU_SHARES": "theano=cpu",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }  # fmt: skip
    (tmp_path / "early.py").write_text("import theano\ndef load_ipython_extension(ip): pass\n")
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text("get_config().InteractiveShellApp.extensions = ['early']\n")
    kernel = start_kernel(theano_python, variables=variables)
    kernel.ok(PLAN)
    assert not [name for name in kernel.value("planned()") if "Gpu" in name]
