"""A DataLoader whose worker processes hold device memory, beside what the main process holds."""

from __future__ import annotations

import protocol
import torch
from torch.utils.data import DataLoader, Dataset

WORKERS = 2


class OnDevice(Dataset):
    """Each item is made on the device, by a worker that keeps what it made."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> int:
        try:
            self.kept.append(torch.empty(protocol.UNIT, dtype=torch.uint8, device="cuda"))
        except torch.cuda.OutOfMemoryError:
            return 0
        return 1


if __name__ == "__main__":
    loader = DataLoader(OnDevice(), batch_size=1, num_workers=WORKERS, multiprocessing_context="spawn")
    batches = iter(loader)
    by_workers = sum(int(next(batches)[0]) for _ in range(min(64, 2 * protocol.MOST // protocol.UNIT)))

    def free(held: list[object]) -> None:
        held.clear()
        torch.cuda.empty_cache()

    protocol.run(
        torch.__version__,
        lambda: torch.empty(protocol.UNIT, dtype=torch.uint8, device="cuda"),
        free,
        by_workers=by_workers * protocol.UNIT,
    )
    del batches
