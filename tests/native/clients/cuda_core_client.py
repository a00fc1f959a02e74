"""Takes memory through cuda.core until there is none, and prints how many bytes it got."""

from __future__ import annotations

import json

try:
    from cuda.core import Device
except ImportError:
    from cuda.core.experimental import Device

UNIT = 64 << 20

device = Device(0)
device.set_current()
stream = device.create_stream()
held = []
error = ""
while not error and len(held) < 1000:
    try:
        held.append(device.allocate(UNIT, stream=stream))
    except Exception as problem:  # noqa: BLE001 - which class it is differs between releases
        error = str(problem)
got = len(held) * UNIT
for buffer in held:
    buffer.close(stream)
stream.sync()
print(json.dumps({"pool": got, "error": error}))
