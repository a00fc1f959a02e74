"""What the REST API says and does, on simulated GPUs, with real kernels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from tornado.httpclient import HTTPClientError

import jupyter_gpu
from jupyter_gpu.host import GPUHost
from jupyter_gpu.leases.lease import Ask, Origin, Owner

GIB = 1 << 30
DOCUMENT = yaml.safe_load((Path(jupyter_gpu.__file__).parent / "server" / "openapi.yaml").read_text())


def schema_of(path: str, method: str) -> dict[str, Any]:
    content = DOCUMENT["paths"][path][method]["responses"]["200"]["content"]
    return {**content["application/json"]["schema"], "components": DOCUMENT["components"]}


class API:
    """The endpoints, each answer checked against the document."""

    def __init__(self, fetch: Callable[..., Any]) -> None:
        self._fetch = fetch

    async def get(self, path: str, template: str | None = None) -> Any:
        answer = json.loads((await self._fetch("gpu/api/" + path)).body)
        Draft202012Validator(schema_of(template or f"/gpu/api/{path}", "get")).validate(answer)
        return answer

    async def kernels(self) -> list[dict[str, Any]]:
        table = await self.get("kernels")
        kernels = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        for kernel in kernels:
            kernel["devices"] = [dict(zip(table["device_columns"], row, strict=True)) for row in kernel["devices"]]
            for device in kernel["devices"]:
                device["reasons"] = table["reasons"][device["reasons"]]
            Draft202012Validator(schema_of("/gpu/api/kernels/{kernel_id}", "get")).validate(kernel)
        return kernels

    async def kernel(self, kernel_id: str) -> Any:
        return await self.get(f"kernels/{kernel_id}", "/gpu/api/kernels/{kernel_id}")

    async def change(self, kernel_id: str, request: str, **more: Any) -> Any:
        body = json.dumps({"request": request, **more})
        answer = json.loads((await self._fetch(f"gpu/api/kernels/{kernel_id}", method="PATCH", body=body)).body)
        Draft202012Validator(schema_of("/gpu/api/kernels/{kernel_id}", "patch")).validate(answer)
        return answer

    async def refused(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        with pytest.raises(HTTPClientError) as error:
            await self._fetch("gpu/api/" + path, method=method, **options)
        return error.value.code, json.loads(error.value.response.body)["message"]

    async def start(self, path: str, kernel: str = "python3") -> dict[str, Any]:
        body = {"path": path, "name": Path(path).name, "type": "notebook", "kernel": {"name": kernel}}
        answer = await self._fetch("api/sessions", method="POST", body=json.dumps(body))
        return dict(json.loads(answer.body))

    async def shut_down(self, session: dict[str, Any]) -> None:
        await self._fetch(f"api/sessions/{session['id']}", method="DELETE")


@pytest.fixture
def api(jp_serverapp: Any, jp_fetch: Callable[..., Any]) -> API:
    return API(jp_fetch)


async def test_the_status_says_what_is_in_place(api: API, runtime_directory: Path) -> None:
    status = await api.get("status")
    assert status["simulated"] is True
    assert status["device_count"] == 4
    assert status["default_request"] == "auto"
    assert status["ledger"] == {"path": str(runtime_directory / "ledger.sqlite"), "ok": True, "problem": None}
    assert status["provisioner"] == {"active": True, "reason": None}


async def test_kernelspecs_carry_the_choices_with_the_bases_logo(
    api: API, jp_fetch: Callable[..., Any], jp_serverapp: Any
) -> None:
    await api.get("devices")
    specs = json.loads((await jp_fetch("api", "kernelspecs")).body)["kernelspecs"]
    assert {"python3", "python3-cpu", "python3-gpu-auto", "python3-gpu0", "python3-gpu3"} <= set(specs)
    assert specs["python3-gpu1"]["spec"]["metadata"]["jupyter_gpu"]["request"] == "1"
    for resource, url in specs["python3-gpu1"]["resources"].items():
        assert resource in specs["python3"]["resources"]
        assert (await jp_fetch(url.removeprefix(jp_serverapp.base_url))).code == 200
    assert "logo-svg" in specs["python3-gpu1"]["resources"]


async def test_a_picked_gpu_is_held_and_shown_and_let_go(api: API, jp_fetch: Callable[..., Any]) -> None:
    session = await api.start("a.ipynb", "python3-gpu1")
    kernel = await api.kernel(session["kernel"]["id"])
    assert (kernel["label"], kernel["request"], kernel["origin"], kernel["state"]) == (
        "a.ipynb",
        "1",
        "variant",
        "running",
    )
    assert [device["index"] for device in kernel["devices"]] == ["1"]
    [lease] = (await api.get("devices"))["devices"][1]["leases"]
    assert lease["kind"] == "shared"
    assert lease["cap_bytes"] == 40 * GIB
    assert lease["owner"]["label"] == "a.ipynb"
    assert lease["owner"]["kernel_id"] == session["kernel"]["id"]
    assert lease["owner"]["mine"] is True
    await api.shut_down(session)
    assert await api.kernels() == []
    assert (await api.get("devices"))["devices"][1]["leases"] == []


async def test_memory_changes_at_once_and_another_gpu_takes_a_restart(api: API) -> None:
    session = await api.start("a.ipynb", "python3-gpu1")
    kernel_id = session["kernel"]["id"]
    changed = await api.change(kernel_id, "1:8GiB")
    assert (changed["applied"], changed["request"]) == ("now", "1:8GiB")
    assert changed["devices"][0]["cap_bytes"] == 8 * GIB
    assert changed["pid"] == (await api.kernel(kernel_id))["pid"]

    noted = await api.change(kernel_id, "2:8GiB")
    assert (noted["applied"], noted["request"], noted["pending_request"]) == ("on-restart", "1:8GiB", "2:8GiB")
    assert noted["message"] == "a.ipynb gets GPU 2:8GiB when its kernel is restarted."

    restarted = await api.change(kernel_id, "2:8GiB", restart=True)
    assert (restarted["applied"], restarted["request"], restarted["pending_request"]) == ("restarted", "2:8GiB", None)
    assert [device["index"] for device in restarted["devices"]] == ["2"]
    assert restarted["pid"] != changed["pid"]
    assert restarted["origin"] == "api"


async def test_a_noted_request_takes_effect_when_the_kernel_is_restarted_by_anybody(
    api: API, jp_fetch: Callable[..., Any]
) -> None:
    session = await api.start("a.ipynb", "python3-gpu1")
    kernel_id = session["kernel"]["id"]
    await api.change(kernel_id, "3:all")
    await jp_fetch(f"api/kernels/{kernel_id}/restart", method="POST", body="")
    kernel = await api.kernel(kernel_id)
    assert (kernel["request"], kernel["devices"][0]["index"], kernel["devices"][0]["kind"]) == ("3:all", "3", "whole")


async def test_a_kernel_keeps_running_on_what_it_has_until_the_new_gpu_is_free(api: API) -> None:
    holder = await api.start("a.ipynb", "python3-gpu1")
    await api.change(holder["kernel"]["id"], "1:all")
    session = await api.start("b.ipynb", "python3-gpu2")
    kernel_id = session["kernel"]["id"]
    before = await api.kernel(kernel_id)
    change = asyncio.ensure_future(api.change(kernel_id, "1:8GiB", restart=True))
    [entry] = await _until_waiting(api)
    assert entry["message"] == "waits for 8 GiB on GPU 1, held by a.ipynb"
    assert entry["kernel_id"] == kernel_id
    meanwhile = await api.kernel(kernel_id)
    assert (meanwhile["pid"], meanwhile["request"]) == (before["pid"], "2")
    await api.shut_down(holder)
    changed = await asyncio.wait_for(change, 30)
    assert changed["devices"][0]["index"] == "1"
    assert changed["pid"] != before["pid"]


async def test_a_cancelled_change_leaves_the_kernel_as_it_was(api: API, jp_fetch: Callable[..., Any]) -> None:
    holder = await api.start("a.ipynb", "python3-gpu1")
    await api.change(holder["kernel"]["id"], "1:all")
    session = await api.start("b.ipynb", "python3-gpu2")
    kernel_id = session["kernel"]["id"]
    before = await api.kernel(kernel_id)
    body = json.dumps({"request": "1", "restart": True})
    change = asyncio.ensure_future(api.refused("PATCH", f"kernels/{kernel_id}", body=body))
    [entry] = await _until_waiting(api)
    assert (await jp_fetch(f"gpu/api/queue/{entry['id']}", method="DELETE")).code == 204
    assert await change == (409, "The request 1 for b.ipynb was cancelled.")
    after = await api.kernel(kernel_id)
    assert (after["pid"], after["lease_id"], after["request"]) == (before["pid"], before["lease_id"], "2")


async def test_a_second_notebook_waits_visibly_and_can_be_cancelled(api: API, jp_fetch: Callable[..., Any]) -> None:
    holder = await api.start("a.ipynb", "python3-gpu1")
    await api.change(holder["kernel"]["id"], "1:all")
    start = asyncio.ensure_future(api.start("b.ipynb", "python3-gpu1"))
    [entry] = await _until_waiting(api)
    assert (entry["label"], entry["position"], entry["mine"]) == ("b.ipynb", 1, True)
    assert entry["message"] == "waits for GPU 1, held by a.ipynb"
    waiting = [kernel for kernel in await api.kernels() if kernel["state"] == "waiting"]
    assert [(kernel["label"], kernel["kernel_id"]) for kernel in waiting] == [("b.ipynb", entry["kernel_id"])]
    assert (await jp_fetch(f"gpu/api/queue/{entry['id']}", method="DELETE")).code == 204
    with pytest.raises(HTTPClientError) as error:
        await start
    assert "was cancelled" in json.loads(error.value.response.body)["message"]
    assert (await api.get("queue"))["entries"] == []


async def test_a_session_that_changes_its_kernel_hands_a_whole_gpu_over(api: API, jp_fetch: Callable[..., Any]) -> None:
    session = await api.start("a.ipynb", "python3-gpu1")
    await api.change(session["kernel"]["id"], "1:all")
    GPUHost.instance().default_request = "1:all"
    GPUHost.instance().default_policy = "wait"
    body = json.dumps({"kernel": {"name": "python3"}})
    answer = await jp_fetch(f"api/sessions/{session['id']}", method="PATCH", body=body)
    after = json.loads(answer.body)
    assert after["kernel"]["id"] != session["kernel"]["id"]
    [lease] = (await api.get("devices"))["devices"][1]["leases"]
    assert (lease["kind"], lease["owner"]["kernel_id"]) == ("whole", after["kernel"]["id"])


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ('{"request": "7"}', 400, "There is no GPU 7; there is 0 (NVIDIA A100-SXM4-40GB), 1"),
        ('{"request": "1:99GiB"}', 400, "99GiB is more memory than there is: GPU 1 has 40 GiB."),
        ('{"request": "1:8"}', 400, "'8' has no unit; write 8GiB or 8MiB"),
        ('{"request": "%s%d"}', 400, "'%s%d' is not a GPU request"),
        ('{"request": 1}', 400, 'The body has no text under "request"'),
        ('{"request": "1", "restart": "yes"}', 400, '"restart" is neither true nor false'),
        ('{"request": "1", "and": 1}', 400, "The body has the unknown name 'and'"),
        ("[]", 400, 'The body has neither "request" nor "keep_when_idle"'),
        ('{"restart": true}', 400, 'The body has neither "request" nor "keep_when_idle"'),
        ('{"keep_when_idle": null}', 400, '"keep_when_idle" is neither true nor false'),
        ('{"keep_when_idle": true, "restart": true}', 400, 'The body has "restart" without a "request"'),
        ("{", 400, "The body is not JSON"),
        ("[" * 60000, 400, "The body is not JSON"),
        ("\xff", 400, "The body is not JSON"),
        ('{"request": "' + "1" * 70000 + '"}', 413, "The body has more than 65536 bytes"),
    ],
)
async def test_a_bad_change_is_refused_with_one_sentence(api: API, body: str, status: int, sentence: str) -> None:
    session = await api.start("a.ipynb", "python3-cpu")
    path = f"kernels/{session['kernel']['id']}"
    code, message = await api.refused("PATCH", path, body=body.encode("latin-1"))
    assert code == status
    assert message.startswith(sentence)
    assert message.endswith(".")


async def test_what_is_not_there_is_not_found(api: API) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    missing = (404, f"There is no kernel {nobody} on this server.")
    assert await api.refused("GET", f"kernels/{nobody}") == missing
    assert await api.refused("PATCH", f"kernels/{nobody}", body='{"request": "1"}') == missing
    gone = (404, "No request with this id waits; it was granted or cancelled before.")
    assert await api.refused("DELETE", "queue/nobody") == gone


async def test_a_granted_lease_cannot_be_cancelled_through_the_queue(api: API) -> None:
    session = await api.start("a.ipynb", "python3-gpu1")
    lease_id = (await api.kernel(session["kernel"]["id"]))["lease_id"]
    assert (await api.refused("DELETE", f"queue/{lease_id}"))[0] == 404
    assert (await api.kernel(session["kernel"]["id"]))["lease_id"] == lease_id


async def test_leases_of_other_processes_are_shown_as_theirs(api: API) -> None:
    host = GPUHost.instance()
    await host.survey()
    ask = Ask("elsewhere", "0:10GiB", Origin.API, Owner("command", "train.py"), host.process)
    await asyncio.to_thread(host.ask_now, ask)
    [device, *_] = (await api.get("devices"))["devices"]
    assert device["reserved_bytes"] == 10 * GIB
    assert device["available_bytes"] == 30 * GIB
    assert device["leases"][0]["owner"]["kind"] == "command"


async def _until_waiting(api: API) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for _ in range(500):
        found = (await api.get("queue"))["entries"]
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("nothing waits")


class TestWithoutTheProvisioner:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return {"GPUExtension": {"provision_all_kernels": False}}

    async def test_kernels_start_as_ever_and_the_status_says_so(self, api: API, jp_fetch: Callable[..., Any]) -> None:
        status = await api.get("status")
        assert status["provisioner"]["active"] is False
        assert "provision_all_kernels is false" in status["provisioner"]["reason"]
        specs = json.loads((await jp_fetch("api", "kernelspecs")).body)["kernelspecs"]
        assert not any(name.startswith("python3-") for name in specs)
        session = await api.start("a.ipynb")
        kernel = await api.kernel(session["kernel"]["id"])
        assert (kernel["lease_id"], kernel["state"]) == (None, "cpu")
        assert kernel["notices"] == ["This kernel was not started by the GPU provisioner."]
        path = f"kernels/{session['kernel']['id']}"
        code, message = await api.refused("PATCH", path, body='{"request": "1"}')
        assert code == 409
        assert "not started by the GPU provisioner" in message


class TestWithAnotherDefaultProvisioner:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return {"KernelProvisionerFactory": {"default_provisioner_name": "somebody-elses"}}

    async def test_it_is_left_in_place(self, api: API) -> None:
        reason = (await api.get("status"))["provisioner"]["reason"]
        assert reason == "somebody-elses is configured as the default kernel provisioner"


async def test_an_unusable_ledger_is_told_and_the_server_still_answers(api: API, runtime_directory: Path) -> None:
    GPUHost.instance().ledger.close()
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (runtime_directory / name).unlink(missing_ok=True)
    (runtime_directory / "ledger.sqlite").write_bytes(b"garbage" * 1000)
    status = await api.get("status")
    assert status["ledger"]["ok"] is False
    assert "cannot be used" in status["ledger"]["problem"]
    assert len((await api.get("devices"))["devices"]) == 4
    assert (await api.get("queue"))["entries"] == []
    session = await api.start("a.ipynb", "python3-gpu1")
    kernel = await api.kernel(session["kernel"]["id"])
    assert kernel["state"] == "problem"
    assert "runs without a GPU" in kernel["notices"][0]
