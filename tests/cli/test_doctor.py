"""`jupyter gpu doctor`: what works, what does not, and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jupyter_gpu.host import GPUHost
    from jupyter_gpu.leases.lease import Lease

    from .conftest import Command


def findings(gpu: Command, **environment: str) -> dict[str, Any]:
    done = gpu("doctor", "--json", status=None, **environment)
    assert done.returncode in (0, 1)
    model = json.loads(done.stdout)
    assert model["ok"] is (done.returncode == 0)
    assert model["ok"] is not any(finding["state"] == "problem" for finding in model["findings"])
    return {finding["name"]: finding for finding in model["findings"]}


def test_every_device_is_found(gpu: Command) -> None:
    found = findings(gpu)
    for index in range(4):
        finding = found[f"GPU {index}"]
        assert finding["state"] == "ok"
        assert "NVIDIA A100-SXM4-40GB, 40 GiB, GPU-" in finding["found"]
        assert "(simulated)" in finding["found"]


def test_the_ledger_is_named_with_its_file_system_and_its_leases(
    gpu: Command, host: GPUHost, take: Callable[..., Lease]
) -> None:
    take("0")
    finding = findings(gpu)["Ledger"]
    assert finding["state"] == "ok"
    assert finding["found"].startswith(f"{host.ledger.store.path} (")
    assert finding["found"].endswith("), 1 lease")


def test_a_wrong_simulation_is_a_problem_and_so_is_the_status(gpu: Command) -> None:
    finding = findings(gpu, JUPYTER_GPU_SIMULATE="nonsense")["GPUs"]
    assert finding["state"] == "problem"
    assert finding["advice"] == "Correct JUPYTER_GPU_SIMULATE."
    done = gpu("doctor", status=1, JUPYTER_GPU_SIMULATE="nonsense")
    assert "[problem] GPUs: " in done.stdout
    assert "\n          Correct JUPYTER_GPU_SIMULATE.\n" in done.stdout


def test_an_unusable_ledger_is_a_problem_and_the_rest_is_looked_at_all_the_same(gpu: Command, host: GPUHost) -> None:
    host.ledger.store.path.write_bytes(b"no database at all\n" * 100)
    found = findings(gpu)
    assert found["Ledger"]["state"] == "problem"
    assert "cannot be used" in found["Ledger"]["found"]
    assert found["GPU 0"]["state"] == "ok"


def test_the_provisioner_is_found_and_its_use_without_a_server_explained(gpu: Command) -> None:
    found = findings(gpu)
    assert found["Kernel provisioner"]["state"] == "ok"
    assert "JUPYTER_DEFAULT_PROVISIONER_NAME" in found["Kernels without a server"]["advice"]
    with_it = findings(gpu, JUPYTER_DEFAULT_PROVISIONER_NAME="gpu-provisioner")
    assert "Kernels without a server" not in with_it


def test_a_server_extension_that_was_switched_off_is_a_problem_with_the_way_out(gpu: Command, tmp_path: Path) -> None:
    directory = tmp_path / "config" / "jupyter_server_config.d"
    directory.mkdir(parents=True)
    (directory / "x.json").write_text('{"ServerApp": {"jpserver_extensions": {"jupyter_gpu": false}}}')
    user_first = {"JUPYTER_PREFER_ENV_PATH": "0"}
    finding = findings(gpu, **user_first)["Server extension"]
    assert finding["state"] == "problem"
    assert finding["advice"] == "Run jupyter server extension enable jupyter_gpu."
    (directory / "x.json").write_text('{"ServerApp": {"jpserver_extensions": {"jupyter_gpu": true}}}')
    finding = findings(gpu, **user_first)["Server extension"]
    assert (finding["state"], finding["found"]) == ("ok", f"enabled in {tmp_path / 'config'}")


def test_processes_on_the_devices_are_known_here(gpu: Command, take: Callable[..., Lease], use: Any) -> None:
    use(take("0"), 1 << 30)
    assert findings(gpu)["Processes"] == {
        "name": "Processes", "state": "ok", "found": "1 on the devices, all of them known here", "advice": "",
    }  # fmt: skip


def test_frameworks_of_each_kernelspec_are_told(gpu: Command) -> None:
    assert findings(gpu)["Frameworks of python3"]["state"] == "ok"
