"""What is typed after `%gpu` is understood, or refused with one sentence that says what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from magic_kernel import StartKernel, leased

from jupyter_gpu.kernel.arguments import CommandError, HelpAsked, Language
from jupyter_gpu.kernel.completion import completions
from jupyter_gpu.kernel.entrance import framework_names
from jupyter_gpu.kernel.environment import Environment
from jupyter_gpu.kernel.lease import KernelDevice
from jupyter_gpu.kernel.session import Session
from jupyter_gpu.kernel.wishes import Share, Wish, parse_shares

GIB = 1 << 30


def device(ordinal: int, index: str, cap: int | None) -> KernelDevice:
    uuid = f"GPU-{ordinal}1111111-0000-4000-8000-000000000000"
    return KernelDevice(ordinal, uuid, index, "NVIDIA A100", cap, 40 * GIB, 0, 0, 0, 0)


TWO = [device(0, "1", 8 * GIB), device(1, "3", 16 * GIB)]


@pytest.fixture
def session() -> Session:
    return Session(shell=None, names=framework_names(), environment=Environment({}))


@pytest.fixture
def language(session: Session) -> Language:
    return Language(session.frameworks())


def wish(language: Language, line: str, devices: Any = TWO) -> Wish:
    arguments = language.parse(line)
    framework = next(each for each in language.frameworks if arguments.command in (each.name, *each.aliases))
    return language.wish(framework, arguments, devices)


class TestUnderstood:
    def test_an_amount_for_every_device(self, language: Language) -> None:
        assert wish(language, "tf --memory 4GiB") == Wish(every_device=4 * GIB)

    def test_different_amounts_for_devices_by_index(self, language: Language) -> None:
        asked = wish(language, "tensorflow --memory 1=4GiB,3=12GiB --growth on")
        assert asked == Wish(devices=((TWO[0].uuid, 4 * GIB), (TWO[1].uuid, 12 * GIB)), growth=True)

    def test_a_device_by_the_beginning_of_its_uuid(self, language: Language) -> None:
        assert wish(language, "torch --memory GPU-1=2GiB") == Wish(devices=((TWO[1].uuid, 2 * GIB),))

    def test_a_fraction_as_number_or_percentage(self, language: Language) -> None:
        assert wish(language, "jax --fraction 0.25").fraction == wish(language, "jax --fraction 25%").fraction == 0.25

    def test_where_theano_goes(self, language: Language) -> None:
        assert wish(language, "theano cpu") == Wish(cpu=True)
        assert wish(language, "theano gpu") == Wish(cpu=False)
        assert wish(language, "theano floatX=float32,device=cpu") == Wish()

    def test_json_stands_before_or_after_the_command(self, language: Language) -> None:
        assert language.parse("--json list").json
        assert language.parse("list --json").json
        assert not language.parse("list").json

    def test_a_later_wish_replaces_the_limit_and_keeps_the_rest(self) -> None:
        first = Wish(every_device=GIB, growth=True)
        assert first.merged(Wish(fraction=0.5)) == Wish(fraction=0.5, growth=True)
        assert first.merged(Wish(growth=False)) == Wish(every_device=GIB, growth=False)


class TestRefused:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("wat", ["no command 'wat'", "list, use, memory, cpu, free, watch", "tensorflow", "theano"]),
            ("caffe --memory 1GiB", ["no command 'caffe'", "torch"]),
            ("tf --memory 4", ["'4' has no unit", "4GiB"]),
            ("tf --memory 7=4GiB", ["no GPU '7'", "1 (NVIDIA A100)", "3 (NVIDIA A100)"]),
            ("tf --memory 1=4GiB,8GiB", ["'8GiB' names no device", "0=4GiB,1=8GiB"]),
            ("tf --memory GPU-=1GiB", ["GPU-"]),
            ("tf --memory 12GiB", ["cannot have 12 GiB on GPU 1", "cap there is 8 GiB", "%gpu memory 12GiB"]),
            ("tf --fraction 1.5", ["'1.5' is not a part", "up to 1"]),
            ("tf --fraction nope", ["'nope' is not a part"]),
            ("tf --memory 1GiB --fraction 0.5", ["one of them"]),
            ("tf --growth maybe", ["maybe", "on", "off"]),
            ("watch perhaps", ["perhaps", "on", "off"]),
            ("use", ["REQUEST"]),
            ("tf 'unclosed", ["quotation"]),
        ],
    )
    def test_in_one_sentence(self, language: Language, line: str, words: list[str]) -> None:
        with pytest.raises(CommandError) as caught:
            wish(language, line)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message

    def test_help_is_not_an_error_and_names_every_command(self, language: Language) -> None:
        with pytest.raises(HelpAsked) as caught:
            language.parse("--help")
        for word in ("list", "use", "memory", "cpu", "free", "watch", "theano", "25%", "%%gpu"):
            assert word in str(caught.value)
        with pytest.raises(HelpAsked, match="DEVICE=AMOUNT"):
            language.parse("tf --help")


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "symbol", "offered"),
        [
            ("%gpu ", "", {"list", "use", "memory", "cpu", "free", "watch", "tf", "theano", "torch", "--json"}),
            ("%gpu th", "th", {"theano"}),
            ("%gpu use ", "", {"cpu", "auto", "0", "1", "--restart"}),
            ("%gpu watch ", "", {"on", "off"}),
            ("%gpu theano ", "", {"cpu", "gpu", "--restart"}),
            ("%gpu tf --gr", "gr", {"growth"}),
            ("%gpu tf --growth ", "", {"on", "off"}),
            ("%gpu tf --memory ", "", {"4GiB", "1=", "3="}),
            ("%gpu free ", "", {"torch", "tensorflow"}),
            ("%gpu memory ", "", {"8GiB", "25%", "all"}),
        ],
    )
    def test_what_may_stand_there(self, language: Language, line: str, symbol: str, offered: set[str]) -> None:
        assert offered <= set(completions(language, line, symbol, TWO, ["0", "1", "2", "3"]))

    def test_in_a_kernel_nothing_else_is_offered(self, start_kernel: StartKernel, tmp_path: Path) -> None:
        kernel = start_kernel(variables=leased(tmp_path, 8 * GIB))
        assert kernel.complete("%gpu t") == ["tensorflow", "tf", "theano", "torch"]
        assert kernel.complete("state = %gpu tf --me") == ["--memory"]
        assert kernel.complete("%gpu theano ")[-2:] == ["cpu", "gpu"]
        assert kernel.complete("%gpu watch o") == ["off", "on"]
        assert "print" in kernel.complete("pri")

    def test_the_question_mark_shows_the_help(self, start_kernel: StartKernel, tmp_path: Path) -> None:
        shown = start_kernel(variables=leased(tmp_path, 8 * GIB)).inspect("%gpu")
        assert "usage: %gpu" in shown
        assert "limit TensorFlow" in shown

    def test_nothing_hidden_and_nothing_that_is_there_already(self, language: Language) -> None:
        assert "--measure-cell" not in completions(language, "%gpu --", "--", TWO, [])
        assert "--restart" not in completions(language, "%gpu tf --restart --", "", TWO, [])


class TestShares:
    def test_are_read(self) -> None:
        shares, problems = parse_shares("theano=cpu, tensorflow=75%,torch=2GiB")
        assert shares == {"theano": Share(cpu=True), "tensorflow": Share(fraction=0.75), "torch": Share(amount=2 * GIB)}
        assert problems == []

    def test_what_is_none_is_named_and_the_others_hold(self) -> None:
        shares, problems = parse_shares("theano=lots,torch=25%")
        assert shares == {"torch": Share(fraction=0.25)}
        assert "'theano=lots'" in problems[0]
