/* Memory pools, and the memory of graphs, which the driver keeps in a pool per device of its own.
 *
 * A pool keeps what was freed, so what it has reserved is charged, as the driver reports it.
 */
#ifndef JUPYTER_GPU_POOLS_H
#define JUPYTER_GPU_POOLS_H

#include "state.h"

struct jgpu_pool;

/* How an operation that may let a pool grow was let through. */
struct jgpu_growth {
    struct jgpu_pool *pool; /* NULL: not counted */
    int device;
    uint64_t reserved; /* bytes that were reserved for it; 0: what the pool has idle should do */
    uint64_t before;   /* what the pool was charged */
};

/* The pool of graph memory on a device; NULL where the lease does not have the device. To be put back. */
struct jgpu_pool *jgpu_graph_pool(CUdevice device);
void jgpu_put_pool(struct jgpu_pool *pool);

/* Before `bytes` are taken from a pool. False: refused, and noted so. */
bool jgpu_begin_growth(struct jgpu_growth *growth, struct jgpu_pool *pool, uint64_t bytes);
/* Afterwards, whether it succeeded or not. True where the pool grew past the cap by it, so that it must be undone. */
bool jgpu_end_growth(struct jgpu_growth *growth);
/* After the undoing: give back what is idle, and note the refusal. */
void jgpu_undo_growth(struct jgpu_growth *growth, uint64_t bytes);

/* Charge what the pools have now: at a synchronisation the driver may have taken out of them what was freed. */
void jgpu_look_at_pools(void);
/* Let the pools of this process give back what is idle, as the driver does before it reports out-of-memory. */
void jgpu_give_back_idle_pools(void);

/* Calls that would spoil a stream capture of this thread may be made between these two. */
CUstreamCaptureMode jgpu_relax_capture(void);
void jgpu_resume_capture(CUstreamCaptureMode mode);

#endif
