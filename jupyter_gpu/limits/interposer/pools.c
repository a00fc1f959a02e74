/* The books of pools. The driver is asked what a pool has reserved; no lock is held meanwhile. */
#include "pools.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "forget.h"
#include "memory.h"

/* Drivers let a pool grow in steps; one of 32 MiB was seen with small allocations. */
enum { MOST_POOLS = 512, GROWTH_STEP = 32 << 20, LONGEST_PAUSE_NS = 4000000, REST_NS = 10000000, MOST_RESTS = 7 };

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
    uint64_t failed_bytes, failed_idle; /* when a trial last failed */
    unsigned failures;                  /* lately: two for each trial that fails, less one for each that does not */
    int64_t rests_until_ns;             /* no trial before that */
    uint64_t trims;
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

uint64_t jgpu_trims(struct jgpu_pool *pool) {
    pthread_mutex_lock(&lock);
    uint64_t trims = pool->trims;
    pthread_mutex_unlock(&lock);
    return trims;
}

void jgpu_note_trim(struct jgpu_pool *pool) {
    pthread_mutex_lock(&lock);
    pool->trims++;
    pthread_mutex_unlock(&lock);
}

struct jgpu_pool *jgpu_graph_pool(CUdevice device) { return find_or_add(GRAPHS, NULL, device); }

struct jgpu_pool *jgpu_pool_on(CUdevice device, CUmemoryPool handle) { return find_or_add(POOL, handle, device); }

struct jgpu_pool *jgpu_known_pool(CUmemoryPool handle) {
    pthread_mutex_lock(&lock);
    struct jgpu_pool *pool = find(POOL, handle, 0);
    pthread_mutex_unlock(&lock);
    return pool;
}

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

/* Charge what the pool has now. Answers may arrive in another order than the questions were put: only that to the
 * latest question counts, and each that changes a pool asks after its change. */
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
    jgpu_note_trim(pool);
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
    if (__builtin_add_overflow(bytes, (uint64_t)GROWTH_STEP - 1, &rounded))
        return bytes;
    return rounded / GROWTH_STEP * GROWTH_STEP;
}

static bool reserve_growth(struct jgpu_growth *growth, bool (*reserve)(int, uint64_t)) {
    uint64_t wanted = in_steps(growth->bytes);
    if (!reserve(growth->device, wanted))
        return false;
    growth->reserved = wanted;
    return true;
}

static void prepare_growth(struct jgpu_growth *growth, struct jgpu_pool *pool, uint64_t bytes) {
    *growth = (struct jgpu_growth){.pool = pool, .device = pool->account_device, .bytes = bytes};
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Under the lock, for each trial that fails passes the cap for a moment: a pool where many do is seldom tried. */
static void note_trial(struct jgpu_growth *growth, bool failed) {
    struct jgpu_pool *pool = growth->pool;
    if (!failed) {
        pool->failures -= pool->failures > 0;
        return;
    }
    pool->failed_bytes = growth->bytes;
    pool->failed_idle = growth->idle;
    pool->failures = pool->failures < MOST_RESTS - 1 ? pool->failures + 2 : MOST_RESTS;
    pool->rests_until_ns = now_ns() + ((int64_t)REST_NS << pool->failures);
}

/* Whether what the pool has idle might do. Nobody tries again what has failed unless more is idle now. */
static bool may_do(struct jgpu_growth *growth) {
    struct jgpu_pool *pool = growth->pool;
    uint64_t reserved, used;
    if (!ask(pool, &reserved, &used) || reserved < used || reserved - used + growth->held < growth->bytes)
        return false;
    growth->idle = reserved - used;
    pthread_mutex_lock(&lock);
    bool may = pool->failed_bytes == 0 || growth->bytes < pool->failed_bytes || growth->idle > pool->failed_idle;
    may = may && (pool->failures == 0 || now_ns() >= pool->rests_until_ns);
    pthread_mutex_unlock(&lock);
    return may;
}

/* See if the pool serves from what it has idle. Where that is in too small pieces it grows instead, which has to be
 * undone: so nobody else in the lease may ask for anything meanwhile, or it could get what is to be undone, and the
 * lease pass its cap by more than this one allocation. */
static enum jgpu_trial try_what_is_idle(struct jgpu_growth *growth) {
    uint64_t wanted = in_steps(growth->bytes);
    if (!may_do(growth))
        return JGPU_SHARED;
    enum jgpu_trial found = jgpu_begin_trial(growth->device, wanted);
    if (found != JGPU_ALONE)
        return found;
    growth->is_trial = true;
    growth->reserved = wanted;
    if (may_do(growth)) /* still, now that nobody else can take it */
        return JGPU_ALONE;
    jgpu_end_trial(growth->device, wanted);
    growth->is_trial = false;
    growth->reserved = 0;
    return JGPU_SHARED;
}

bool jgpu_begin_growth(struct jgpu_growth *growth, struct jgpu_pool *pool, uint64_t bytes, uint64_t held) {
    prepare_growth(growth, pool, bytes);
    growth->held = held;
    for (long pause_ns = 1000; pause_ns < LONGEST_PAUSE_NS; pause_ns *= 2) {
        /* At the cap, what the pool has idle is the lease's own already, and the driver serves from it first. To be
         * strict then would mean to wait for the device at every allocation of a program that runs at its cap. */
        if (reserve_growth(growth, jgpu_reserve_if_free))
            return true;
        enum jgpu_trial found = try_what_is_idle(growth);
        if (found != JGPU_BUSY)
            return found == JGPU_ALONE;
        nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
    }
    return false;
}

bool jgpu_begin_growth_below_cap(struct jgpu_growth *growth, struct jgpu_pool *pool, uint64_t bytes) {
    prepare_growth(growth, pool, bytes);
    return reserve_growth(growth, jgpu_reserve);
}

bool jgpu_end_growth(struct jgpu_growth *growth, bool succeeded) {
    struct jgpu_pool *pool = growth->pool;
    look_at(pool);
    /* What is pending for a trial stays so until what it did is undone. */
    if (!growth->is_trial)
        jgpu_cancel(growth->device, growth->reserved);
    bool must_go = succeeded && jgpu_is_over(growth->device);
    if (!growth->is_trial)
        return must_go;
    pthread_mutex_lock(&lock);
    note_trial(growth, must_go);
    pthread_mutex_unlock(&lock);
    if (!must_go)
        jgpu_end_trial(growth->device, growth->reserved);
    return must_go;
}

void jgpu_growth_is_undone(struct jgpu_growth *growth) {
    jgpu_give_back_idle_pools();
    if (growth->is_trial)
        jgpu_end_trial(growth->device, growth->reserved);
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

struct jgpu_pool *jgpu_begin_destruction(CUmemoryPool handle) {
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
    return pool;
}

void jgpu_end_destruction(struct jgpu_pool *pool, bool is_destroyed) {
    if (is_destroyed)
        charge_what_is_left(pool);
    pthread_mutex_lock(&lock);
    uint64_t charged = is_destroyed ? pool->charged : 0;
    int device = pool->account_device;
    if (is_destroyed) {
        memset(pool, 0, sizeof *pool);
    } else {
        pool->closing = false;
        pool->users--;
    }
    pthread_mutex_unlock(&lock);
    jgpu_discharge(device, charged);
}
