"""A training loop: prints its seconds per step, after a warm-up."""

from __future__ import annotations

import sys
import time

import torch

STEPS, WARM_UP = int(sys.argv[1]), 20

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 64, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.Conv2d(64, 64, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(8),
    torch.nn.Flatten(),
    torch.nn.Linear(64 * 64, 10),
).cuda()
optimizer = torch.optim.Adam(model.parameters())
images = torch.randn(64, 3, 64, 64, device="cuda")
labels = torch.randint(0, 10, (64,), device="cuda")
begin = 0.0
for step in range(WARM_UP + STEPS):
    if step == WARM_UP:
        torch.cuda.synchronize()
        begin = time.perf_counter()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
torch.cuda.synchronize()
print((time.perf_counter() - begin) / STEPS)
