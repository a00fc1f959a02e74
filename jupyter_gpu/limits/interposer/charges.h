/* What this process holds, by the address or handle that will give it back. */
#ifndef JUPYTER_GPU_CHARGES_H
#define JUPYTER_GPU_CHARGES_H

#include <stdbool.h>
#include <stdint.h>

/* Addresses and handles of different kinds may have the same number. */
enum jgpu_kind {
    JGPU_MEMORY = 1, /* dies with its context */
    JGPU_ARRAY,
    JGPU_MIPMAP,
    JGPU_POOLED, /* charged through its pool, whose record is the owner */
    JGPU_HANDLE, /* of virtual memory: the owner is its block, the bytes count its references */
};

struct jgpu_charge {
    enum jgpu_kind kind;
    int device; /* in the account */
    uint64_t key;
    uint64_t bytes;
    void *owner; /* a context, a pool or a block: what it dies with */
};

/* True with `old` filled where the key had a charge before: memory that was freed behind our back. False in *kept where
 * there is no room for it. */
bool jgpu_put_charge(const struct jgpu_charge *charge, struct jgpu_charge *old, bool *kept);
bool jgpu_find_charge(enum jgpu_kind kind, uint64_t key, struct jgpu_charge *found);
bool jgpu_take_charge(enum jgpu_kind kind, uint64_t key, struct jgpu_charge *taken);
/* Take all of one owner, one at a time: false when there is none left. `place` begins at zero. */
bool jgpu_take_charge_of(void *owner, unsigned *place, struct jgpu_charge *taken);

#endif
