/* The account file of a lease, version 1: the C twin of limits/account.py, which documents the layout.
 *
 * What a lease holds is the sum over the slots of its living processes. A process writes only its own slot, so one that
 * dies at any instruction takes its part along. All numbers are in the host's byte order and aligned to their size.
 */
#ifndef JUPYTER_GPU_ACCOUNT_H
#define JUPYTER_GPU_ACCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define JGPU_ACCOUNT_MAGIC "JGPUACCT"
#define JGPU_ACCOUNT_VERSION 1u
#define JGPU_NO_CAP UINT64_MAX
#define JGPU_MOST_DEVICES 64u
#define JGPU_LARGEST_ACCOUNT_BYTES (64u << 20)
#define JGPU_LONGEST_PATH 4096

struct jgpu_account_header {
    char magic[8];
    uint32_t version;
    uint32_t header_size;
    uint32_t device_count;
    uint32_t slot_count;
    uint32_t device_size;
    uint32_t slot_size;
    uint64_t file_size;
    char lease_id[64];
    char boot_id[40];
    /* One past the highest slot ever claimed, written under the lock. It only saves looking at slots that nobody
     * had. */
    _Atomic uint64_t slots_claimed;
    /* The inode of /proc/self/ns/pid of who made the file; 0 is unknown. In another namespace its pids mean others. */
    uint64_t pid_namespace;
    uint8_t reserved[96];
};

struct jgpu_account_device {
    char uuid[64];
    _Atomic uint64_t cap;
    _Atomic uint64_t total;
    _Atomic uint64_t peak;
    _Atomic uint64_t refusals;
    _Atomic uint64_t refused_size;
    _Atomic uint64_t refused_used;
    _Atomic uint64_t overhead;
    _Atomic uint64_t refused_pid;
    uint8_t reserved[128];
};

struct jgpu_account_slot {
    _Atomic uint64_t pid;
    _Atomic uint64_t start_time;
    _Atomic uint64_t busy;
    _Atomic uint64_t busy_since;
    _Atomic uint64_t amounts[]; /* used × device_count, then pending × device_count */
};

_Static_assert(sizeof(_Atomic uint64_t) == 8, "the numbers of the file are accessed in place");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "an atomic that hides a lock would not work between processes");
_Static_assert(sizeof(struct jgpu_account_header) == 256, "header");
_Static_assert(offsetof(struct jgpu_account_header, file_size) == 32, "header");
_Static_assert(offsetof(struct jgpu_account_header, lease_id) == 40, "header");
_Static_assert(offsetof(struct jgpu_account_header, boot_id) == 104, "header");
_Static_assert(offsetof(struct jgpu_account_header, slots_claimed) == 144, "header");
_Static_assert(offsetof(struct jgpu_account_header, pid_namespace) == 152, "header");
_Static_assert(sizeof(struct jgpu_account_device) == 256, "device record");
_Static_assert(offsetof(struct jgpu_account_device, cap) == 64, "device record");
_Static_assert(offsetof(struct jgpu_account_device, refused_pid) == 120, "device record");
_Static_assert(offsetof(struct jgpu_account_slot, amounts) == 32, "slot");

/* One mapped account. The counts are those checked when it was opened: what is written over the header later can
 * mislead nobody into an address outside the mapping. */
struct jgpu_account {
    uint8_t *base;
    size_t size;
    uint32_t device_count;
    uint32_t slot_count;
    uint32_t slot_size;
    dev_t device_number; /* of the file, to find the same one again by its path */
    ino_t inode;
    char path[JGPU_LONGEST_PATH];
};

/* What a reservation came to. */
enum jgpu_grant {
    JGPU_GRANTED,
    JGPU_CONTENDED, /* others ask at the same moment, and without them it would fit */
    JGPU_REFUSED,
};

/* Map the account at `path`. False, and nothing mapped, where it is not a whole account of this version, user and
 * boot. */
bool jgpu_account_open(struct jgpu_account *account, const char *path);
void jgpu_account_close(struct jgpu_account *account);

struct jgpu_account_device *jgpu_account_device(const struct jgpu_account *account, unsigned device);
struct jgpu_account_slot *jgpu_account_slot(const struct jgpu_account *account, unsigned slot);

/* The record of the device with these 16 bytes of UUID, GPU- or MIG-; -1 where the lease has none. */
int jgpu_account_find_device(const struct jgpu_account *account, const uint8_t uuid[16]);
/* The same by the text that NVML gives. */
int jgpu_account_find_device_text(const struct jgpu_account *account, const char *uuid);

/* This process's slot, empty, with the slots of the dead reclaimed; NULL where all belong to the living, or the lock
 * cannot be had within `patience_ms`. */
struct jgpu_account_slot *jgpu_account_claim(const struct jgpu_account *account, unsigned patience_ms);
/* Empty the slots of processes that have ended. */
void jgpu_account_reclaim(const struct jgpu_account *account, unsigned patience_ms);

/* Ask for `bytes`: where granted they are pending, until jgpu_account_commit or jgpu_account_cancel. */
enum jgpu_grant jgpu_account_reserve(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                                     uint64_t bytes);
void jgpu_account_cancel(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                         uint64_t bytes);

/* What came of asking to be alone with a device. */
enum jgpu_trial {
    JGPU_ALONE,
    JGPU_BUSY,   /* another thread of this process asks at the same moment */
    JGPU_SHARED, /* other processes have a part in it, or more is held than may be */
};

/* Ask to try what might pass the cap by `bytes`. Where granted they are pending, like a reservation's, but beyond what
 * may be held: until they are cancelled nobody else in the lease is granted anything that would not fit beside them.
 * Two processes that ask at once both see the other, and so do a trial and a reservation. */
enum jgpu_trial jgpu_account_begin_trial(const struct jgpu_account *account, struct jgpu_account_slot *own,
                                         unsigned device, uint64_t bytes);
/* Turn `reserved` pending bytes into `actual` used ones, and note the peak. */
void jgpu_account_commit(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                         uint64_t reserved, uint64_t actual);
void jgpu_account_discharge(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                            uint64_t bytes);
void jgpu_account_note_refusal(const struct jgpu_account *account, unsigned device, uint64_t bytes);

/* What all slots hold together, in bytes. */
uint64_t jgpu_account_used(const struct jgpu_account *account, unsigned device);
/* What may be held by allocations, in bytes: the cap less what the driver took for itself; JGPU_NO_CAP is no cap. */
uint64_t jgpu_account_limit(const struct jgpu_account *account, unsigned device);

#endif
