"""Having samples taken for as long as a kernel of this server has a cap of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..leases.request import GPURequest, Hold, RequestError

if TYPE_CHECKING:
    from ..kernels import KernelRecord, KernelRegister
    from ..usage.sampler import GPUSampler, Need


class CappedKernels:
    """What keeps the sampler running for policies on caps, and not a moment longer than there is one."""

    def __init__(self, kernels: KernelRegister, sampler: GPUSampler, interval_s: float) -> None:
        """Nothing is wanted until `watch`.

        Args:
            kernels: the kernels of this server.
            sampler: what is to run.
            interval_s: how often to look while nobody watches.
        """
        self._kernels = kernels
        self._sampler = sampler
        self._interval_s = interval_s
        self._need: Need | None = None

    def watch(self) -> None:
        """Begin to go by what becomes of kernels."""
        self._kernels.listen(self._on_kernel)

    def close(self) -> None:
        """Want no more samples."""
        if self._need is not None:
            self._need.close()
            self._need = None

    def _on_kernel(self, _: KernelRecord, what: str) -> None:
        if what not in ("started", "changed", "ended"):
            return
        if not any(_has_cap(record) for record in self._kernels):
            self.close()
        elif self._need is None:
            self._need = self._sampler.need(self._interval_s)


def _has_cap(record: KernelRecord) -> bool:
    try:
        request = GPURequest.parse(record.request)
    except RequestError:
        return False
    memories = [choice.memory for choice in request.listed] or ([request.memory] if request.count else [])
    return any(memory.hold is Hold.RESERVED for memory in memories)
