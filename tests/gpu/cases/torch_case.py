"""PyTorch's allocators; PYTORCH_CUDA_ALLOC_CONF, set by `run.py`, says which."""

from __future__ import annotations

import protocol
import torch


def free(held: list[object]) -> None:
    held.clear()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


torch.cuda.init()
protocol.run(
    torch.__version__,
    lambda: torch.empty(protocol.UNIT, dtype=torch.uint8, device="cuda"),
    free,
    total=torch.cuda.mem_get_info()[1],
)
