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
    uint64_t bytes;    /* that are asked for */
    uint64_t reserved; /* bytes that are pending for it */
    uint64_t held;     /* that the pool keeps for it */
    uint64_t idle;     /* what the pool had idle then */
    bool is_trial;     /* what is pending passes the cap: what the pool has idle should do */
};

/* The pool of graph memory on a device; NULL where the lease does not have the device. To be put back. */
struct jgpu_pool *jgpu_graph_pool(CUdevice device);
/* A pool that was seen before, and one on a device that may be new; NULL where it is not counted. To be put back. */
struct jgpu_pool *jgpu_known_pool(CUmemoryPool handle);
struct jgpu_pool *jgpu_pool_on(CUdevice device, CUmemoryPool handle);
void jgpu_put_pool(struct jgpu_pool *pool);
/* How often what a pool had idle was taken out of it, and note that it is. */
uint64_t jgpu_trims(struct jgpu_pool *pool);
void jgpu_note_trim(struct jgpu_pool *pool);

/* Before a pool is destroyed, NULL where it is not counted, and afterwards. */
struct jgpu_pool *jgpu_begin_destruction(CUmemoryPool handle);
void jgpu_end_destruction(struct jgpu_pool *pool, bool is_destroyed);

/* Before `bytes` are taken from a pool, `held` of which it keeps for who asks already. False where there is no room,
 * neither below the cap nor in the pool. */
bool jgpu_begin_growth(struct jgpu_growth *growth, struct jgpu_pool *pool, uint64_t bytes, uint64_t held);
/* The same after all has been done to make room, and with room below the cap only. False: refused, and noted so. */
bool jgpu_begin_growth_below_cap(struct jgpu_growth *growth, struct jgpu_pool *pool, uint64_t bytes);
/* Afterwards. True where it succeeded and the pool grew past the cap by it: then it must be undone, and
 * jgpu_growth_is_undone called. */
bool jgpu_end_growth(struct jgpu_growth *growth, bool succeeded);
void jgpu_growth_is_undone(struct jgpu_growth *growth);

/* Charge what the pools have now: at a synchronisation the driver may have taken out of them what was freed. */
void jgpu_look_at_pools(void);
/* Let the pools of this process give back what is idle, as the driver does before it reports out-of-memory. */
void jgpu_give_back_idle_pools(void);

/* Calls that would spoil a stream capture of this thread may be made between these two. */
CUstreamCaptureMode jgpu_relax_capture(void);
void jgpu_resume_capture(CUstreamCaptureMode mode);

#endif
