"""The account: one small file per lease, through which its processes and the server share cap, use and peak.

Standard library only: it also runs inside kernels, on every Python from 3.7.

Layout, version 1. All numbers are unsigned, in the host's byte order, aligned to their size. A C twin maps the same
file with the same offsets (`limits/interposer/account.h`)::

    header, 256 bytes
      0  magic        8 bytes   b"JGPUACCT"
      8  version      u32       1
     12  header_size  u32       256
     16  device_count u32
     20  slot_count   u32
     24  device_size  u32       256, bytes from one device record to the next
     28  slot_size    u32       32 + 16 * device_count rounded up to 64
     32  file_size    u64
     40  lease_id     64 bytes  NUL-terminated ASCII
    104  boot_id      40 bytes  NUL-terminated ASCII, /proc/sys/kernel/random/boot_id
    144  …            zero
    device record, device_count times
      0  uuid         64 bytes  NUL-terminated ASCII
     64  cap          u64       bytes; 2**64-1 is no cap
     72  total        u64       bytes the device has; 0 is unknown
     80  peak         u64       bytes, the most that all slots held at once since it was last reset
     88  refusals     u64       how many allocations were refused at the cap
     96  refused_size u64       bytes asked for by the last one that was refused
    104  refused_used u64       bytes held in all when it was refused
    112  overhead     u64       bytes that the driver took for itself (contexts, modules), as the server measured them
    120  refused_pid  u64       who asked for it
    128  …            zero
    slot, slot_count times
      0  pid          u64       0 is a free slot
      8  start_time   u64       /proc/<pid>/stat field 22, clock ticks since boot
     16  …            zero
     32  used         u64 × device_count   bytes this process holds
      …  pending      u64 × device_count   bytes this process is asking for right now

Only the process that a slot belongs to writes its `used` and `pending`. Nothing else is added up anywhere: what a
lease holds is the sum over the slots of living processes, so a process that dies at any instruction takes its part
along, and there is no total that could drift. To allocate, a process adds the size to its own `pending`, sums
`used + pending` over all slots, and takes the size back where the sum passes the cap; else it moves it to `used`.
Two that ask at once may both be refused (and try again after a moment), but never pass the cap together.
C does this with sequentially consistent atomics. Python has none, so Python processes also hold an exclusive
`flock` on the file meanwhile. Claiming a slot and reclaiming those of the dead is done under that lock by both.
"""
