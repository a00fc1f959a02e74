/* Keeping the books of one allocation: what the hooks of memory and of arrays share. */
#ifndef JUPYTER_GPU_MEMORY_H
#define JUPYTER_GPU_MEMORY_H

#include "charges.h"
#include "state.h"

/* After a successful allocation of `actual` bytes, for which `reserved` were reserved. */
void jgpu_note_allocation(enum jgpu_kind kind, uint64_t key, const struct jgpu_place *place, uint64_t reserved,
                          uint64_t actual);
/* Take a charge off the account. */
void jgpu_drop_charge(const struct jgpu_charge *charge);
/* Put back what was taken before a call that then failed. */
void jgpu_restore_charge(const struct jgpu_charge *charge);

#endif
