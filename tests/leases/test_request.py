"""The text of a request: what it means, how it is written back, and what is said of one that means nothing."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_gpu.leases.request import (
    CPU,
    SHARED,
    WHOLE,
    DeviceChoice,
    GPURequest,
    Hold,
    Memory,
    RequestError,
    model_matches,
)

GIB = 1 << 30
UUID = "GPU-5ab3c7f1-12ab-4c3d-8e9f-00112233aabb"


def reserved(amount: int) -> Memory:
    return Memory(Hold.RESERVED, bytes=amount)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("cpu", CPU),
        (" NONE ", CPU),
        ("auto", GPURequest(count=1)),
        ("Auto:8GiB", GPURequest(count=1, memory=reserved(8 * GIB))),
        ("auto: 25 %", GPURequest(count=1, memory=Memory(Hold.RESERVED, share=Fraction(1, 4)))),
        ("1", GPURequest(listed=(DeviceChoice("1"),))),
        ("0,1", GPURequest(listed=(DeviceChoice("0"), DeviceChoice("1")))),
        ("0.2", GPURequest(listed=(DeviceChoice("0.2"),))),
        ("gpu-5ab3", GPURequest(listed=(DeviceChoice("GPU-5ab3"),))),
        (f"{UUID}:all", GPURequest(listed=(DeviceChoice(UUID, WHOLE),))),
        ("2x", GPURequest(count=2)),
        ("2XH100:20GB", GPURequest(count=2, model="H100", memory=reserved(20 * 10**9))),
        ("1xnvidia-a100-sxm4-40gb", GPURequest(count=1, model="nvidia-a100-sxm4-40gb")),
        ("0,1:8GiB", GPURequest(listed=(DeviceChoice("0", reserved(8 * GIB)), DeviceChoice("1", reserved(8 * GIB))))),
        ("0:shared,1:8GiB", GPURequest(listed=(DeviceChoice("0"), DeviceChoice("1", reserved(8 * GIB))))),
        (
            "0:4GiB, 1:16GiB",
            GPURequest(listed=(DeviceChoice("0", reserved(4 * GIB)), DeviceChoice("1", reserved(16 * GIB)))),
        ),
    ],
)
def test_a_request_means_what_the_grammar_says(text: str, request_: GPURequest) -> None:
    assert GPURequest.parse(text) == request_


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "cpu"),
        ("1x", "auto"),
        ("01x", "auto"),
        ("AUTO:ALL", "auto:all"),
        ("auto:shared", "auto"),
        ("1:1024MiB", "1:1GiB"),
        ("1:1.5GB", "1:1500MB"),
        ("0:8GiB,1:8GiB", "0,1:8GiB"),
        ("0:shared,1:shared", "0,1"),
        ("auto:12.50%", "auto:12.5%"),
        ("auto:100%", "auto:100%"),
        ("mig-abc", "MIG-abc"),
    ],
)
def test_every_way_to_write_a_request_has_one_canonical_text(text: str, canonical: str) -> None:
    assert str(GPURequest.parse(text)) == canonical


amounts = st.one_of(
    st.integers(min_value=1, max_value=1 << 45).map(reserved),
    st.integers(min_value=1, max_value=100_000_000).map(
        lambda millionths: Memory(Hold.RESERVED, share=Fraction(millionths, 100_000_000))
    ),
)
memories = st.one_of(st.just(SHARED), st.just(WHOLE), amounts)
indices = st.one_of(
    st.integers(min_value=0, max_value=9999).map(str),
    st.tuples(st.integers(min_value=0, max_value=9999), st.integers(min_value=0, max_value=9999)).map(
        lambda pair: f"{pair[0]}.{pair[1]}"
    ),
    st.from_regex(r"(GPU|MIG)-[0-9a-z/-]{1,40}", fullmatch=True),
)
listed = st.lists(st.builds(DeviceChoice, indices, memories), min_size=1, max_size=8, unique_by=lambda c: c.device)
models = st.one_of(st.none(), st.from_regex(r"[0-9A-Za-z][0-9A-Za-z._-]{0,20}", fullmatch=True))
requests = st.one_of(
    st.just(CPU),
    listed.map(lambda choices: GPURequest(listed=tuple(choices))),
    st.builds(
        lambda count, model, memory: GPURequest(count=count, model=model, memory=memory),
        st.integers(min_value=1, max_value=64),
        models,
        memories,
    ),
)


@given(requests)
def test_what_is_written_is_read_back_to_the_same_request(request_: GPURequest) -> None:
    text = str(request_)
    assert GPURequest.parse(text) == request_
    assert str(GPURequest.parse(text)) == text


@given(requests, st.data())
def test_case_and_spaces_around_words_do_not_matter(request_: GPURequest, data: st.DataObject) -> None:
    text = str(request_)
    spaced = "".join(data.draw(st.sampled_from((c, f" {c} "))) if c in ",:" else c for c in text)
    assert GPURequest.parse(f" {spaced}\n") == request_


@given(requests, memories)
def test_with_other_memory_the_devices_stay_the_same(request_: GPURequest, memory: Memory) -> None:
    changed = request_.with_memory(memory)
    assert changed.device_count == request_.device_count
    assert [choice.device for choice in changed.listed] == [choice.device for choice in request_.listed]
    assert GPURequest.parse(str(changed)) == changed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the GPU request is empty; write one of cpu, auto"),
        ("   ", "is empty"),
        ("gpu", "'gpu' is not a GPU request; write one of cpu, auto"),
        ("-1", "'-1' is not a GPU request"),
        ("1.2.3", "is not a GPU request"),
        ("01", "is not a GPU request"),
        ("99999", "is not a GPU request"),
        ("GPU-", "is not a GPU request"),
        ("0,", "has an empty place where a GPU is expected"),
        (",", "has an empty place"),
        (":8GiB", "has an empty place"),
        ("0,0", "names GPU 0 more than once"),
        ("1:4GiB,1:8GiB", "names GPU 1 more than once"),
        ("1:", "'' is not an amount of memory"),
        ("1:8", "'8' has no unit; write 8GiB or 8MiB, or a share such as 25%, or all"),
        ("1:8G", "did you mean 8GiB"),
        ("1:8GiB:2", "is not an amount of memory"),
        ("1:much", "is not an amount of memory"),
        ("1:-1GiB", "is not an amount of memory"),
        ("1:0GiB", "less than one byte"),
        ("1:0%", "write a percentage from 1% to 100%"),
        ("1:101%", "write a percentage from 1% to 100%"),
        ("1:5%%", "is not an amount of memory"),
        ("0x", "0x asks for 0 GPUs; ask for 1x to 64x, or for cpu"),
        ("65x", "ask for 1x to 64x"),
        ("99999999999999999999999x", "ask for 1x to 64x"),
        ("2xH 100", "is not a GPU request"),
        ("auto,1", "'auto' cannot be listed with other GPUs"),
        ("1,cpu", "'cpu' cannot be listed with other GPUs"),
        ("1,2x", "'2x' cannot be listed with other GPUs"),
        ("cpu:8GiB", "asks for memory of no GPU; write cpu alone, or name a GPU, such as auto:8GiB"),
        ("0:4GiB,1", "gives memory for some GPUs only"),
        ("0,1:4GiB,2", "gives memory for some GPUs only"),
        ("x" * 1001, "at most 1000 characters, this one has 1001"),
        (",".join(map(str, range(65))), "lists at most 64 GPUs, this one lists 65"),
    ],
)
def test_what_is_no_request_is_refused_with_one_sentence(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        GPURequest.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 1, 1.5, ["0"], {"request": "1"}, b"1"])
def test_what_is_no_text_is_refused_by_its_type(value: object) -> None:
    with pytest.raises(RequestError, match=f"not {type(value).__name__}"):
        GPURequest.parse(value)  # type: ignore[arg-type]


@settings(max_examples=400)
@given(st.one_of(st.text(), st.text(alphabet="0123456789.,:xX%cpuautoalGiBMGPUMIG-/ \n", max_size=40)))
def test_any_text_is_a_request_or_refused(text: str) -> None:
    try:
        request = GPURequest.parse(text)
    except RequestError:
        return
    assert GPURequest.parse(str(request)) == request


def test_control_characters_of_a_wrong_request_are_not_repeated_raw() -> None:
    with pytest.raises(RequestError) as caught:
        GPURequest.parse("0,\x1b[2J")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("memory", "device_bytes", "size"),
    [
        (SHARED, 40 * GIB, None),
        (WHOLE, 40 * GIB, 40 * GIB),
        (WHOLE, None, None),
        (reserved(GIB), 40 * GIB, GIB),
        (reserved(GIB), None, GIB),
        (Memory(Hold.RESERVED, share=Fraction(1, 4)), 40 * GIB, 10 * GIB),
        (Memory(Hold.RESERVED, share=Fraction(1, 3)), 100, 33),
        (Memory(Hold.RESERVED, share=Fraction(1, 4)), None, None),
    ],
)
def test_memory_is_an_amount_on_a_device(memory: Memory, device_bytes: int | None, size: int | None) -> None:
    assert memory.size_on(device_bytes) == size


@pytest.mark.parametrize(
    ("word", "matches"),
    [
        ("H100", True),
        ("h100", True),
        ("nvidia-h100", True),
        ("NVIDIA_H100_80GB", True),
        ("80gb-hbm3", True),
        ("A100", False),
        ("H100NVL", False),
    ],
)
def test_a_model_is_a_word_of_the_name_whatever_its_case_and_separators(word: str, matches: bool) -> None:
    assert model_matches(word, "NVIDIA H100 80GB HBM3") is matches
