/* The books of pools. The driver is asked what a pool has reserved; no lock is held meanwhile. */
#include "pools.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>

#include "forget.h"
#include "memory.h"

/* Drivers let a pool grow in steps; one of 32 MiB was seen with small allocations. */
enum { MOST_POOLS = 512, GROWTH_STEP = 32 << 20 };

enum what { UNUSED, POOL, GRAPHS };

struct jgpu_pool {
    enum what what;
    CUmemoryPool handle;
    CUdevice device;
    int account_device;
    bool closing;     /* its owner destroys it */
    unsigned users;   /* threads that may be asking the driver about it */
    uint64_t charged; /* bytes in the account for it */
    uint64_t asked;   /* number of the last question to the driver */
    uint64_t answered; /* number of the question whose answer is charged */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct jgpu_pool pools[MOST_POOLS];
static unsigned pool_count; /* one past the highest used */
static _Atomic bool is_used; /* any pool at all */

void jgpu_forget_pools(void) {
    pthread_mutex_init(&lock, NULL);
    memset(pools, 0, sizeof pools);
    pool_count = 0;
    atomic_store(&is_used, false);
}

/* Under the lock: the record, with a user more. */
static struct jgpu_pool *find(enum what what, CUmemoryPool handle, CUdevice device) {
    for (unsigned number = 0; number < pool_count; number++) {
        struct jgpu_pool *pool = &pools[number];
        if (pool->what == what && !pool->closing && (what == POOL ? pool->handle == handle : pool->device == device)) {
            pool->users++;
            return pool;
        }
    }
    return NULL;
}

static struct jgpu_pool *find_or_add(enum what what, CUmemoryPool handle, CUdevice device) {
    int account_device = jgpu_device(device);
    if (account_device < 0)
        return NULL;
    pthread_mutex_lock(&lock);
    struct jgpu_pool *pool = find(what, handle, device);
    for (unsigned number = 0; pool == NULL && number < MOST_POOLS; number++) {
        if (pools[number].what != UNUSED)
            continue;
        pool = &pools[number];
        *pool = (struct jgpu_pool){
            .what = what, .handle = handle, .device = device, .account_device = account_device, .users = 1};
        if (number >= pool_count)
            pool_count = number + 1;
        atomic_store_explicit(&is_used, true, memory_order_relaxed);
    }
    pthread_mutex_unlock(&lock);
    return pool;
}

void jgpu_put_pool(struct jgpu_pool *pool) {
    if (pool == NULL)
        return;
    pthread_mutex_lock(&lock);
    pool->users--;
    pthread_mutex_unlock(&lock);
}

struct jgpu_pool *jgpu_graph_pool(CUdevice device) { return find_or_add(GRAPHS, NULL, device); }

/* What the driver says of a pool, in bytes. */
static bool ask(const struct jgpu_pool *pool, uint64_t *reserved, uint64_t *used) {
    cuuint64_t values[2] = {0, 0};
    if (pool->what == POOL) {
        __typeof__(&cuMemPoolGetAttribute) get = JGPU_REAL(cuMemPoolGetAttribute);
        if (get == NULL || get(pool->handle, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &values[0]) != CUDA_SUCCESS)
            return false;
        if (used != NULL && get(pool->handle, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &values[1]) != CUDA_SUCCESS)
            return false;
    } else {
        __typeof__(&cuDeviceGetGraphMemAttribute) get = JGPU_REAL(cuDeviceGetGraphMemAttribute);
        if (get == NULL || get(pool->device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, &values[0]) != CUDA_SUCCESS)
            return false;
        if (used != NULL && get(pool->device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &values[1]) != CUDA_SUCCESS)
            return false;
    }
    *reserved = values[0];
    if (used != NULL)
        *used = values[1];
    return true;
}

/* Charge what the pool has now. Answers may arrive in another order than the questions were put: only that to the latest
 * question counts, and each that changes a pool asks after its change. */
static void look_at(struct jgpu_pool *pool) {
    pthread_mutex_lock(&lock);
    uint64_t question = ++pool->asked;
    pthread_mutex_unlock(&lock);
    uint64_t reserved;
    if (!ask(pool, &reserved, NULL))
        return;
    pthread_mutex_lock(&lock);
    if (question > pool->answered) {
        pool->answered = question;
        if (reserved < pool->charged)
            jgpu_discharge(pool->account_device, pool->charged - reserved);
        else if (reserved > pool->charged)
            jgpu_charge(pool->account_device, reserved - pool->charged);
        pool->charged = reserved;
    }
    pthread_mutex_unlock(&lock);
}

static void look_again_at(struct jgpu_pool *pool) {
    pthread_mutex_lock(&lock);
    bool has_some = pool->charged > 0;
    pthread_mutex_unlock(&lock);
    if (has_some)
        look_at(pool);
}

/* Use each pool that nobody is destroying. */
static void with_each(void (*use)(struct jgpu_pool *)) {
    for (unsigned number = 0;; number++) {
        pthread_mutex_lock(&lock);
        if (number >= pool_count) {
            pthread_mutex_unlock(&lock);
            return;
        }
        struct jgpu_pool *pool = &pools[number];
        bool usable = pool->what != UNUSED && !pool->closing;
        if (usable)
            pool->users++;
        pthread_mutex_unlock(&lock);
        if (usable) {
            use(pool);
            jgpu_put_pool(pool);
        }
    }
}

void jgpu_look_at_pools(void) {
    if (atomic_load_explicit(&is_used, memory_order_relaxed) && jgpu_inside == 0)
        with_each(look_again_at);
}

CUstreamCaptureMode jgpu_relax_capture(void) {
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    __typeof__(&cuThreadExchangeStreamCaptureMode) exchange = JGPU_REAL(cuThreadExchangeStreamCaptureMode);
    if (exchange != NULL)
        exchange(&mode);
    return mode;
}

void jgpu_resume_capture(CUstreamCaptureMode mode) {
    __typeof__(&cuThreadExchangeStreamCaptureMode) exchange = JGPU_REAL(cuThreadExchangeStreamCaptureMode);
    if (exchange != NULL)
        exchange(&mode);
}

static void trim(struct jgpu_pool *pool) {
    CUresult ignored = CUDA_SUCCESS;
    __typeof__(&cuMemPoolTrimTo) trim_pool = JGPU_REAL(cuMemPoolTrimTo);
    __typeof__(&cuDeviceGraphMemTrim) trim_graphs = JGPU_REAL(cuDeviceGraphMemTrim);
    if (pool->what == POOL && trim_pool != NULL)
        JGPU_CALL(ignored, trim_pool(pool->handle, 0));
    else if (pool->what == GRAPHS && trim_graphs != NULL)
        JGPU_CALL(ignored, trim_graphs(pool->device));
    (void)ignored;
    look_at(pool);
}

void jgpu_give_back_idle_pools(void) {
    if (!atomic_load_explicit(&is_used, memory_order_relaxed))
        return;
    CUstreamCaptureMode mode = jgpu_relax_capture();
    with_each(trim);
    jgpu_resume_capture(mode);
}

static uint64_t in_steps(uint64_t bytes) {
    uint64_t rounded;
    return __builtin_add_overflow(bytes, (uint64_t)GROWTH_STEP - 1, &rounded) ? bytes : rounded / GROWTH_STEP * GROWTH_STEP;
}

bool jgpu_begin_growth(struct jgpu_growth *growth, struct jgpu_pool *pool, uint64_t bytes) {
    uint64_t wanted = in_steps(bytes), reserved, used;
    *growth = (struct jgpu_growth){.pool = pool, .device = pool->account_device};
    pthread_mutex_lock(&lock);
    growth->before = pool->charged;
    pthread_mutex_unlock(&lock);
    if (jgpu_reserve_if_free(growth->device, wanted)) {
        growth->reserved = wanted;
        return true;
    }
    /* At the cap. What the pool has idle is the lease's own already, and the driver serves from it first. Where that is
     * in too small pieces it lets the pool grow instead, which is then undone before the caller hears of it. To be strict
     * beforehand would mean to wait for the device at every allocation of a program that runs at its cap. */
    if (ask(pool, &reserved, &used) && reserved >= used && reserved - used >= bytes)
        return true;
    if (!jgpu_reserve(growth->device, wanted))
        return false;
    growth->reserved = wanted;
    return true;
}

bool jgpu_end_growth(struct jgpu_growth *growth) {
    look_at(growth->pool);
    if (growth->reserved > 0)
        jgpu_cancel(growth->device, growth->reserved);
    pthread_mutex_lock(&lock);
    bool grew = growth->pool->charged > growth->before;
    pthread_mutex_unlock(&lock);
    return grew && jgpu_is_over(growth->device);
}

void jgpu_undo_growth(struct jgpu_growth *growth, uint64_t bytes) {
    CUstreamCaptureMode mode = jgpu_relax_capture();
    trim(growth->pool);
    jgpu_resume_capture(mode);
    jgpu_note_refusal(growth->device, bytes);
}

/* ---- the hooks that make, trim and destroy pools ---- */

JGPU_EXPORT CUresult CUDAAPI cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props) {
    __typeof__(&cuMemPoolCreate) real = JGPU_REAL(cuMemPoolCreate);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = real(pool, props);
    if (result != CUDA_SUCCESS || jgpu_inside != 0 || props == NULL || !jgpu_is_counted())
        return result;
    CUdevice device = -1;
    if (props->location.type == CU_MEM_LOCATION_TYPE_DEVICE)
        device = props->location.id;
    else if ((int)props->location.type == JGPU_LOCATION_PART_OF_DEVICE)
        device = props->location.id & 0xff;
    if (device >= 0)
        jgpu_put_pool(find_or_add(POOL, *pool, device));
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemPoolTrimTo(CUmemoryPool handle, size_t keep) {
    __typeof__(&cuMemPoolTrimTo) real = JGPU_REAL(cuMemPoolTrimTo);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(handle, keep);
    CUresult result;
    JGPU_CALL(result, real(handle, keep));
    jgpu_look_at_pools();
    return result;
}

/* Where a pool goes before what was taken from it, each of those is charged by itself until it is freed. */
static void charge_what_is_left(struct jgpu_pool *pool) {
    struct jgpu_charge left;
    unsigned place = 0;
    while (jgpu_take_charge_of(pool, &place, &left)) {
        left.kind = JGPU_MEMORY;
        left.owner = NULL;
        jgpu_charge(left.device, left.bytes);
        jgpu_restore_charge(&left);
    }
}

JGPU_EXPORT CUresult CUDAAPI cuMemPoolDestroy(CUmemoryPool handle) {
    __typeof__(&cuMemPoolDestroy) real = JGPU_REAL(cuMemPoolDestroy);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return real(handle);
    pthread_mutex_lock(&lock);
    struct jgpu_pool *pool = find(POOL, handle, 0);
    if (pool != NULL)
        pool->closing = true;
    /* Nobody may ask the driver about a pool that is gone. Those who do so now are soon done. */
    while (pool != NULL && pool->users > 1) {
        pthread_mutex_unlock(&lock);
        sched_yield();
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    CUresult result;
    JGPU_CALL(result, real(handle));
    if (pool == NULL)
        return result;
    if (result == CUDA_SUCCESS)
        charge_what_is_left(pool);
    pthread_mutex_lock(&lock);
    uint64_t charged = pool->charged;
    int device = pool->account_device;
    if (result == CUDA_SUCCESS) {
        memset(pool, 0, sizeof *pool);
    } else {
        pool->closing = false;
        pool->users--;
    }
    pthread_mutex_unlock(&lock);
    if (result == CUDA_SUCCESS)
        jgpu_discharge(device, charged);
    return result;
}

/* ---- the hooks that take memory from pools ---- */

/* The device that a stream is on; -1 where that cannot be told. */
static CUdevice device_of(CUstream stream, bool per_thread) {
    __typeof__(&cuCtxGetDevice) get_device = JGPU_REAL(cuCtxGetDevice);
    CUdevice device = -1;
    if ((uintptr_t)stream <= 2) /* the default streams, which belong to the current context */
        return get_device != NULL && get_device(&device) == CUDA_SUCCESS ? device : -1;
    __typeof__(&cuStreamGetCtx) get_context = per_thread ? JGPU_REAL(cuStreamGetCtx_ptsz) : JGPU_REAL(cuStreamGetCtx);
    __typeof__(&cuCtxGetCurrent) get_current = JGPU_REAL(cuCtxGetCurrent);
    __typeof__(&cuCtxPushCurrent_v2) push = JGPU_REAL(cuCtxPushCurrent_v2);
    __typeof__(&cuCtxPopCurrent_v2) pop = JGPU_REAL(cuCtxPopCurrent_v2);
    CUcontext context, current;
    if (get_context == NULL || get_current == NULL || push == NULL || pop == NULL || get_device == NULL ||
        get_context(stream, &context) != CUDA_SUCCESS)
        return -1;
    if (get_current(&current) == CUDA_SUCCESS && current == context)
        return get_device(&device) == CUDA_SUCCESS ? device : -1;
    if (push(context) != CUDA_SUCCESS)
        return -1;
    if (get_device(&device) != CUDA_SUCCESS)
        device = -1;
    pop(&context);
    return device;
}

/* The record of a pool that memory is taken from, NULL where it is not to be counted. One that nobody made in this
 * process is a device's default, an import, or one in host memory, and only the first is charged here. */
static struct jgpu_pool *pool_of(CUmemoryPool handle) {
    pthread_mutex_lock(&lock);
    struct jgpu_pool *pool = find(POOL, handle, 0);
    pthread_mutex_unlock(&lock);
    if (pool != NULL)
        return pool;
    __typeof__(&cuDeviceGetCount) get_count = JGPU_REAL(cuDeviceGetCount);
    __typeof__(&cuDeviceGetDefaultMemPool) get_default = JGPU_REAL(cuDeviceGetDefaultMemPool);
    int count = 0;
    if (get_count == NULL || get_default == NULL || get_count(&count) != CUDA_SUCCESS)
        return NULL;
    for (CUdevice device = 0; device < count; device++) {
        CUmemoryPool of_device;
        if (get_default(&of_device, device) == CUDA_SUCCESS && of_device == handle)
            return find_or_add(POOL, handle, device);
    }
    return NULL;
}

static struct jgpu_pool *current_pool(CUstream stream, bool per_thread) {
    CUdevice device = device_of(stream, per_thread);
    __typeof__(&cuDeviceGetMemPool) get_pool = JGPU_REAL(cuDeviceGetMemPool);
    CUmemoryPool handle;
    if (device < 0 || get_pool == NULL || get_pool(&handle, device) != CUDA_SUCCESS)
        return NULL;
    return pool_of(handle);
}

static bool is_capturing(CUstream stream, bool per_thread) {
    __typeof__(&cuStreamIsCapturing) ask_stream =
        per_thread ? JGPU_REAL(cuStreamIsCapturing_ptsz) : JGPU_REAL(cuStreamIsCapturing);
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return ask_stream != NULL && ask_stream(stream, &status) == CUDA_SUCCESS &&
           status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* Free what was just allocated, and wait until the pool can give it back. */
static void undo(CUdeviceptr pointer, CUstream stream, bool per_thread) {
    CUresult ignored;
    __typeof__(&cuMemFreeAsync) give_back = per_thread ? JGPU_REAL(cuMemFreeAsync_ptsz) : JGPU_REAL(cuMemFreeAsync);
    __typeof__(&cuStreamSynchronize) wait =
        per_thread ? JGPU_REAL(cuStreamSynchronize_ptsz) : JGPU_REAL(cuStreamSynchronize);
    CUstreamCaptureMode mode = jgpu_relax_capture();
    if (give_back != NULL)
        JGPU_CALL(ignored, give_back(pointer, stream));
    if (wait != NULL)
        JGPU_CALL(ignored, wait(stream));
    (void)ignored;
    jgpu_resume_capture(mode);
}

enum from { CURRENT_POOL, GIVEN_POOL };

static CUresult allocate(CUdeviceptr *pointer, size_t size, enum from from, CUmemoryPool handle, CUstream stream,
                         bool per_thread) {
    __typeof__(&cuMemAllocAsync) from_current =
        per_thread ? JGPU_REAL(cuMemAllocAsync_ptsz) : JGPU_REAL(cuMemAllocAsync);
    __typeof__(&cuMemAllocFromPoolAsync) from_pool =
        per_thread ? JGPU_REAL(cuMemAllocFromPoolAsync_ptsz) : JGPU_REAL(cuMemAllocFromPoolAsync);
    if (from == CURRENT_POOL ? from_current == NULL : from_pool == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct jgpu_pool *pool = NULL;
    if (jgpu_inside == 0 && jgpu_is_counted())
        pool = from == CURRENT_POOL ? current_pool(stream, per_thread) : pool_of(handle);
    /* In a capture it only becomes a node of a graph, whose memory is taken when it is launched. */
    struct jgpu_growth growth;
    if (pool != NULL && is_capturing(stream, per_thread)) {
        jgpu_put_pool(pool);
        pool = NULL;
    }
    if (pool != NULL && !jgpu_begin_growth(&growth, pool, size)) {
        jgpu_put_pool(pool);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult result;
    JGPU_CALL(result, from == CURRENT_POOL ? from_current(pointer, size, stream)
                                           : from_pool(pointer, size, handle, stream));
    if (pool == NULL)
        return result;
    bool is_over = jgpu_end_growth(&growth);
    if (result == CUDA_SUCCESS && is_over) {
        undo(*pointer, stream, per_thread);
        jgpu_undo_growth(&growth, size);
        *pointer = 0;
        result = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (result == CUDA_SUCCESS) {
        jgpu_restore_charge(&(struct jgpu_charge){
            .kind = JGPU_POOLED, .device = growth.device, .key = *pointer, .bytes = size, .owner = pool});
    }
    jgpu_put_pool(pool);
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocAsync(CUdeviceptr *pointer, size_t size, CUstream stream) {
    return allocate(pointer, size, CURRENT_POOL, NULL, stream, false);
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocAsync_ptsz(CUdeviceptr *pointer, size_t size, CUstream stream) {
    return allocate(pointer, size, CURRENT_POOL, NULL, stream, true);
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocFromPoolAsync(CUdeviceptr *pointer, size_t size, CUmemoryPool pool,
                                                     CUstream stream) {
    return allocate(pointer, size, GIVEN_POOL, pool, stream, false);
}

JGPU_EXPORT CUresult CUDAAPI cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *pointer, size_t size, CUmemoryPool pool,
                                                          CUstream stream) {
    return allocate(pointer, size, GIVEN_POOL, pool, stream, true);
}
