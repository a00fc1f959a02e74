/* What the interposer must keep to, one named behaviour per run:
 *
 *     behaviour --list | behaviour NAME
 *
 * Linked with the driver; JUPYTER_GPU_ACCOUNT names an account whose first device is the stand-in's first, with a cap of
 * 1 GiB. The stand-in has two devices of 4 GiB, and the lease has only the first.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../jupyter_gpu/limits/interposer/account.h"
#include "../../../jupyter_gpu/limits/interposer/driver_functions.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)
#define CAP GIB

CUresult cuInit(unsigned int flags);
CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value);
CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool);
CUresult cuMemAddressReserve(CUdeviceptr *address, size_t size, size_t alignment, CUdeviceptr wanted,
                             unsigned long long flags);
CUresult cuMemAddressFree(CUdeviceptr address, size_t size);
CUresult cuMemExportToShareableHandle(void *shared, CUmemGenericAllocationHandle handle, int type,
                                      unsigned long long flags);
CUresult cuGraphCreate(CUgraph *graph, unsigned int flags);
CUresult cuGraphDestroy(CUgraph graph);
CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                CUDA_MEM_ALLOC_NODE_PARAMS *params);
CUresult cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                  CUgraph child);
CUresult cuEventCreate(CUevent *event, unsigned int flags);
unsigned long standin_violations(int which);
uint64_t standin_in_use(int device);
enum { DOUBLE_FREE, WRONG_VERSION, NO_CONTEXT, INVALID_USE, OVER_LIMIT };

static struct jgpu_account account;
static CUcontext context;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define EQUAL(left, right)                                                                                             \
    do {                                                                                                               \
        long long equal_left = (long long)(left), equal_right = (long long)(right);                                    \
        if (equal_left != equal_right) {                                                                               \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #left, equal_left, equal_right);      \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)
#define OK(call) EQUAL(call, CUDA_SUCCESS)
#define OUT_OF_MEMORY(call) EQUAL(call, CUDA_ERROR_OUT_OF_MEMORY)

static uint64_t used(void) { return jgpu_account_used(&account, 0); }
static uint64_t peak(void) { return atomic_load(&jgpu_account_device(&account, 0)->peak); }
static void set_cap(uint64_t cap) { atomic_store(&jgpu_account_device(&account, 0)->cap, cap); }
static uint64_t pending(void) {
    uint64_t sum = 0;
    for (unsigned number = 0; number < account.slot_count; number++)
        sum += atomic_load(&jgpu_account_slot(&account, number)->amounts[account.device_count]);
    return sum;
}
static unsigned slots(void) {
    unsigned count = 0;
    for (unsigned number = 0; number < account.slot_count; number++)
        count += atomic_load(&jgpu_account_slot(&account, number)->pid) != 0;
    return count;
}

static void begin(void) {
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
}

/* ---- linear memory ---- */

static void the_cap_is_reached_exactly_and_never_passed(void) {
    CUdeviceptr half, quarter, another, one;
    begin();
    OK(cuMemAlloc_v2(&half, CAP / 2));
    OK(cuMemAlloc_v2(&quarter, CAP / 4));
    OK(cuMemAlloc_v2(&another, CAP / 4));
    EQUAL(used(), CAP);
    OUT_OF_MEMORY(cuMemAlloc_v2(&one, 1));
    OK(cuMemFree_v2(quarter));
    EQUAL(used(), CAP * 3 / 4);
    OUT_OF_MEMORY(cuMemAlloc_v2(&one, CAP / 4 + 1));
    OK(cuMemAlloc_v2(&quarter, CAP / 4));
    OK(cuMemFree_v2(half));
    OK(cuMemFree_v2(quarter));
    OK(cuMemFree_v2(another));
    EQUAL(used(), 0);
    EQUAL(peak(), CAP);
    EQUAL(standin_in_use(0), 0);
}

static void a_refusal_is_noted_with_what_was_asked_and_held(void) {
    CUdeviceptr pointer;
    begin();
    OK(cuMemAlloc_v2(&pointer, 300 * MIB));
    OUT_OF_MEMORY(cuMemAlloc_v2(&pointer, 800 * MIB));
    const struct jgpu_account_device *device = jgpu_account_device(&account, 0);
    EQUAL(atomic_load(&device->refusals), 1);
    EQUAL(atomic_load(&device->refused_size), 800 * MIB);
    EQUAL(atomic_load(&device->refused_used), 300 * MIB);
    EQUAL(atomic_load(&device->refused_pid), getpid());
}

static void sizes_that_no_device_has_are_refused_without_a_trace(void) {
    CUdeviceptr pointer;
    size_t pitch;
    begin();
    OUT_OF_MEMORY(cuMemAlloc_v2(&pointer, SIZE_MAX));
    OUT_OF_MEMORY(cuMemAlloc_v2(&pointer, SIZE_MAX / 2 + 1));
    CHECK(cuMemAllocPitch_v2(&pointer, &pitch, SIZE_MAX / 2, 16, 4) != CUDA_SUCCESS);
    OUT_OF_MEMORY(cuMemAllocPitch_v2(&pointer, &pitch, 1 << 30, 1 << 30, 4));
    CHECK(cuMemAlloc_v2(&pointer, 0) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemAlloc_v2(NULL, 16) == CUDA_ERROR_INVALID_VALUE);
    EQUAL(used() + pending(), 0);
}

static void what_the_driver_refuses_is_rolled_back(void) {
    CUdeviceptr pointer;
    begin();
    set_cap(64 * GIB); /* the device has 4 GiB */
    OUT_OF_MEMORY(cuMemAlloc_v2(&pointer, 5 * GIB));
    EQUAL(used() + pending(), 0);
    EQUAL(peak(), 0);
    EQUAL(atomic_load(&jgpu_account_device(&account, 0)->refusals), 0);
}

static void an_unknown_address_always_reaches_the_driver(void) {
    CUdeviceptr pointer;
    CUstream stream;
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuMemFree_v2(0));
    EQUAL(cuMemFree_v2(0x1234000), CUDA_ERROR_INVALID_VALUE);
    EQUAL(standin_violations(DOUBLE_FREE), 1);
    EQUAL(cuMemFreeAsync(0x1234000, stream), CUDA_ERROR_INVALID_VALUE);
    EQUAL(standin_violations(DOUBLE_FREE), 2);
    OK(cuMemAlloc_v2(&pointer, MIB));
    OK(cuMemFree_v2(pointer));
    EQUAL(cuMemFree_v2(pointer), CUDA_ERROR_INVALID_VALUE);
    EQUAL(standin_violations(DOUBLE_FREE), 3);
    EQUAL(used(), 0);
}

static void a_free_that_fails_keeps_the_charge(void) {
    CUdeviceptr pointer;
    begin();
    OK(cuMemAlloc_v2(&pointer, 64 * MIB));
    CUstream stream;
    OK(cuStreamCreate(&stream, 1));
    /* Linear memory is not the pool's to free: the driver says so. */
    CHECK(cuMemFreeAsync(pointer, stream) != CUDA_SUCCESS);
    EQUAL(used(), 64 * MIB);
    OK(cuMemFree_v2(pointer));
    EQUAL(used(), 0);
}

static void without_a_context_the_driver_answers_for_itself(void) {
    CUdeviceptr pointer;
    size_t free_bytes, total;
    EQUAL(cuMemAlloc_v2(&pointer, 16), CUDA_ERROR_NOT_INITIALIZED);
    OK(cuInit(0));
    EQUAL(cuMemAlloc_v2(&pointer, 16), 201);
    EQUAL(cuMemAllocAsync(&pointer, 16, NULL), 201);
    EQUAL(cuMemGetInfo_v2(&free_bytes, &total), 201);
    EQUAL(standin_violations(NO_CONTEXT), 3); /* one per call above, none of the interposer's own */
    EQUAL(used() + pending(), 0);
}

static void a_change_of_the_cap_holds_from_the_next_allocation_on(void) {
    CUdeviceptr first, second, third;
    begin();
    OK(cuMemAlloc_v2(&first, 512 * MIB));
    set_cap(256 * MIB); /* nothing is taken away */
    OUT_OF_MEMORY(cuMemAlloc_v2(&second, 1));
    set_cap(2 * GIB);
    OK(cuMemAlloc_v2(&second, GIB));
    set_cap(JGPU_NO_CAP);
    OK(cuMemAlloc_v2(&third, 2 * GIB));
    EQUAL(used(), 3 * GIB + 512 * MIB);
    OK(cuMemFree_v2(first));
    OK(cuMemFree_v2(second));
    OK(cuMemFree_v2(third));
    EQUAL(used(), 0);
}

static void what_the_driver_takes_for_itself_counts_towards_the_cap(void) {
    CUdeviceptr pointer;
    size_t free_bytes, total;
    begin();
    atomic_store(&jgpu_account_device(&account, 0)->overhead, 300 * MIB);
    OUT_OF_MEMORY(cuMemAlloc_v2(&pointer, 725 * MIB));
    OK(cuMemAlloc_v2(&pointer, 700 * MIB));
    OK(cuMemGetInfo_v2(&free_bytes, &total));
    EQUAL(total, CAP);
    EQUAL(free_bytes, 24 * MIB);
    atomic_store(&jgpu_account_device(&account, 0)->overhead, 2 * GIB);
    OK(cuMemGetInfo_v2(&free_bytes, NULL));
    EQUAL(free_bytes, 0);
}

static void another_device_is_not_counted(void) {
    CUcontext other;
    CUdeviceptr pointer;
    begin();
    OK(cuCtxCreate_v2(&other, 0, 1));
    OK(cuMemAlloc_v2(&pointer, 2 * GIB));
    EQUAL(used(), 0);
    OK(cuMemFree_v2(pointer));
    OK(cuCtxDestroy_v2(other));
}

static void arrays_without_memory_are_not_charged(void) {
    CUarray array;
    CUDA_ARRAY3D_DESCRIPTOR shape = {
        .Width = 1 << 16, .Height = 1 << 16, .Format = 0x20, .NumChannels = 4, .Flags = 0x40};
    begin();
    OK(cuArray3DCreate_v2(&array, &shape));
    EQUAL(used(), 0);
    OK(cuArrayDestroy(array));
}

static void a_mipmapped_array_is_charged_with_all_its_levels(void) {
    CUmipmappedArray array;
    CUDA_ARRAY3D_DESCRIPTOR shape = {.Width = 4096, .Height = 4096, .Format = 0x20, .NumChannels = 1};
    begin();
    OK(cuMipmappedArrayCreate(&array, &shape, 3));
    EQUAL(used(), 64 * MIB + 16 * MIB + 4 * MIB);
    EQUAL(standin_in_use(0), used());
    OK(cuMipmappedArrayDestroy(array));
    EQUAL(used(), 0);
}

/* ---- contexts ---- */

static void a_context_takes_its_memory_along(void) {
    CUcontext own;
    CUdeviceptr pointer;
    CUarray array;
    CUDA_ARRAY_DESCRIPTOR shape = {.Width = 1024, .Height = 1024, .Format = 0x20, .NumChannels = 1};
    begin();
    OK(cuMemAlloc_v2(&pointer, 100 * MIB));
    OK(cuCtxCreate_v2(&own, 0, 0));
    for (int number = 0; number < 100; number++)
        OK(cuMemAlloc_v2(&pointer, MIB));
    OK(cuArrayCreate_v2(&array, &shape));
    EQUAL(used(), 204 * MIB);
    OK(cuCtxDestroy_v2(own));
    EQUAL(used(), 100 * MIB);
    CHECK(cuCtxDestroy_v2(context) != CUDA_SUCCESS); /* not for a primary context: nothing happens to its memory */
    EQUAL(used(), 100 * MIB);
}

static void the_primary_context_takes_its_memory_along_with_its_last_user(void) {
    CUcontext again;
    CUdeviceptr pointer;
    begin();
    OK(cuDevicePrimaryCtxRetain(&again, 0));
    OK(cuMemAlloc_v2(&pointer, 100 * MIB));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    EQUAL(used(), 100 * MIB);
    OK(cuDevicePrimaryCtxRelease_v2(0));
    EQUAL(used(), 0);
    OK(cuDevicePrimaryCtxRetain(&again, 0));
    OK(cuMemAlloc_v2(&pointer, 100 * MIB));
    OK(cuDevicePrimaryCtxReset_v2(0));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
}

/* ---- virtual memory ---- */

static const CUmemAllocationProp block_prop = {.type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};

static void a_mapping_outlives_the_handle(void) {
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    begin();
    OK(cuMemAddressReserve(&address, 512 * MIB, 0, 0, 0));
    OK(cuMemCreate(&handle, 256 * MIB, &block_prop, 0));
    OK(cuMemMap(address, 256 * MIB, 0, handle, 0));
    OK(cuMemRelease(handle));
    EQUAL(used(), 256 * MIB);
    OK(cuMemUnmap(address, 256 * MIB));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
    OK(cuMemAddressFree(address, 512 * MIB));
}

static void a_handle_outlives_the_mapping(void) {
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    begin();
    OK(cuMemAddressReserve(&address, 64 * MIB, 0, 0, 0));
    OK(cuMemCreate(&handle, 64 * MIB, &block_prop, 0));
    OK(cuMemMap(address, 64 * MIB, 0, handle, 0));
    OK(cuMemUnmap(address, 64 * MIB));
    EQUAL(used(), 64 * MIB);
    OK(cuMemMap(address, 64 * MIB, 0, handle, 0));
    OK(cuMemRelease(handle));
    OK(cuMemUnmap(address, 64 * MIB));
    EQUAL(used(), 0);
}

static void a_retained_handle_keeps_the_memory(void) {
    CUmemGenericAllocationHandle handle, retained, imported;
    CUdeviceptr address;
    uint64_t shared;
    begin();
    OK(cuMemAddressReserve(&address, 64 * MIB, 0, 0, 0));
    OK(cuMemCreate(&handle, 64 * MIB, &block_prop, 0));
    OK(cuMemMap(address, 64 * MIB, 0, handle, 0));
    OK(cuMemRetainAllocationHandle(&retained, (void *)(uintptr_t)(address + MIB)));
    OK(cuMemExportToShareableHandle(&shared, handle, 1, 0));
    OK(cuMemImportFromShareableHandle(&imported, &shared, 1));
    EQUAL(used(), 64 * MIB);
    OK(cuMemRelease(handle));
    OK(cuMemUnmap(address, 64 * MIB));
    EQUAL(used(), 64 * MIB);
    OK(cuMemRelease(retained));
    EQUAL(used(), 64 * MIB);
    OK(cuMemRelease(imported));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
    EQUAL(cuMemRelease(imported), CUDA_ERROR_INVALID_VALUE);
    EQUAL(used(), 0);
}

static void one_unmap_may_end_several_mappings(void) {
    enum { BLOCKS = 200 };
    CUmemGenericAllocationHandle handles[BLOCKS];
    CUdeviceptr address;
    begin();
    OK(cuMemAddressReserve(&address, BLOCKS * 2 * MIB, 0, 0, 0));
    for (int number = 0; number < BLOCKS; number++) {
        int place = number * 7 % BLOCKS; /* not in order */
        OK(cuMemCreate(&handles[number], 2 * MIB, &block_prop, 0));
        OK(cuMemMap(address + (CUdeviceptr)place * 2 * MIB, 2 * MIB, 0, handles[number], 0));
        OK(cuMemRelease(handles[number]));
    }
    EQUAL(used(), BLOCKS * 2 * MIB);
    CHECK(cuMemUnmap(address + MIB, 2 * MIB) != CUDA_SUCCESS);
    EQUAL(used(), BLOCKS * 2 * MIB);
    OK(cuMemUnmap(address, BLOCKS * MIB));
    EQUAL(used(), BLOCKS * MIB);
    OK(cuMemUnmap(address + BLOCKS * MIB, BLOCKS * MIB));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
}

static void host_memory_and_other_devices_are_not_charged(void) {
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = {.type = 1, .location = {.type = 3 /* a NUMA node */}};
    begin();
    OK(cuMemCreate(&handle, 64 * GIB, &prop, 0));
    EQUAL(used(), 0);
    OK(cuMemRelease(handle));
    prop = (CUmemAllocationProp){.type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 1}};
    OK(cuMemCreate(&handle, 2 * GIB, &prop, 0));
    EQUAL(used(), 0);
    OK(cuMemRelease(handle));
    CHECK(cuMemCreate(&handle, MIB + 1, &block_prop, 0) == CUDA_ERROR_INVALID_VALUE);
    EQUAL(used() + pending(), 0);
}

/* ---- pools ---- */

static const CUmemPoolProps pool_prop = {.allocType = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};

static void keep_all(CUmemoryPool pool) {
    uint64_t threshold = UINT64_MAX;
    OK(cuMemPoolSetAttribute(pool, 4, &threshold));
}

static void a_pool_is_charged_with_what_it_keeps(void) {
    CUmemoryPool pool;
    CUstream stream;
    CUdeviceptr pointer;
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    OK(cuMemAllocAsync(&pointer, 100 * MIB, stream));
    EQUAL(used(), 128 * MIB); /* it grows in steps of 32 MiB */
    OK(cuMemFreeAsync(pointer, stream));
    EQUAL(used(), 128 * MIB);
    OK(cuStreamSynchronize(stream)); /* above the threshold, nought by default, idle memory goes back */
    EQUAL(used(), 0);
    keep_all(pool);
    OK(cuMemAllocAsync(&pointer, 100 * MIB, stream));
    OK(cuMemFreeAsync(pointer, stream));
    OK(cuStreamSynchronize(stream));
    EQUAL(used(), 128 * MIB);
    OK(cuMemPoolTrimTo(pool, 0));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
}

static void each_synchronisation_takes_off_what_it_frees(void) {
    CUstream stream;
    CUdeviceptr pointer;
    CUevent event;
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuEventCreate(&event, 0));
    for (int way = 0; way < 4; way++) {
        OK(cuMemAllocAsync(&pointer, 64 * MIB, stream));
        EQUAL(used(), 64 * MIB);
        if (way == 3) {
            OK(cuMemFree_v2(pointer));
        } else {
            OK(cuMemFreeAsync(pointer, stream));
            OK(way == 0 ? cuStreamSynchronize_ptsz(stream) : way == 1 ? cuCtxSynchronize() : cuEventSynchronize(event));
        }
        EQUAL(used(), 0);
    }
}

static void at_the_cap_a_pool_serves_from_what_it_has(void) {
    CUmemoryPool pool;
    CUstream stream;
    CUdeviceptr pointer, linear;
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    keep_all(pool);
    OK(cuMemAllocAsync(&pointer, 512 * MIB, stream));
    OK(cuMemAlloc_v2(&linear, 512 * MIB));
    EQUAL(used(), CAP);
    for (int round = 0; round < 10; round++) { /* as a training loop does, without any synchronisation */
        OK(cuMemFreeAsync(pointer, stream));
        OK(cuMemAllocAsync(&pointer, 400 * MIB, stream));
        EQUAL(used(), CAP);
    }
    OUT_OF_MEMORY(cuMemAllocAsync(&pointer, 200 * MIB, stream));
    EQUAL(used(), CAP);
    EQUAL(standin_in_use(0), CAP);
}

static void growth_past_the_cap_is_undone(void) {
    CUmemoryPool pool;
    CUstream stream;
    CUdeviceptr pieces[8], linear, pointer;
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    keep_all(pool);
    for (int piece = 0; piece < 8; piece++)
        OK(cuMemAllocAsync(&pieces[piece], 64 * MIB, stream));
    OK(cuMemAlloc_v2(&linear, 512 * MIB));
    for (int piece = 0; piece < 8; piece += 2)
        OK(cuMemFreeAsync(pieces[piece], stream));
    /* 256 MiB are idle, but in pieces: the driver lets the pool grow, past the cap. What is in pieces is given back then,
     * and it grows below the cap. */
    OK(cuMemAllocAsync(&pointer, 200 * MIB, stream));
    EQUAL(used(), 512 * MIB + 4 * 64 * MIB + 224 * MIB);
    EQUAL(used(), standin_in_use(0));
    OUT_OF_MEMORY(cuMemAllocAsync(&pointer, 64 * MIB, stream));
    EQUAL(used(), 512 * MIB + 4 * 64 * MIB + 224 * MIB);
    EQUAL(used(), standin_in_use(0));
    EQUAL(peak(), CAP); /* the moment above it is no peak */
}

static void idle_pools_make_room_for_other_memory(void) {
    CUmemoryPool pool;
    CUstream stream;
    CUdeviceptr pointer;
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    keep_all(pool);
    OK(cuMemAllocAsync(&pointer, 512 * MIB, stream));
    OK(cuMemFreeAsync(pointer, stream));
    OK(cuStreamSynchronize(stream));
    EQUAL(used(), 512 * MIB);
    OK(cuMemAlloc_v2(&pointer, 900 * MIB)); /* as the driver does before it reports out-of-memory */
    EQUAL(used(), 900 * MIB);
    EQUAL(standin_in_use(0), 900 * MIB);
}

static void what_outlives_its_pool_stays_charged(void) {
    CUmemoryPool pool;
    CUstream stream;
    CUdeviceptr pointer;
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuMemPoolCreate(&pool, &pool_prop));
    OK(cuMemAllocFromPoolAsync(&pointer, 64 * MIB, pool, stream));
    EQUAL(used(), 64 * MIB);
    OK(cuMemPoolDestroy(pool));
    EQUAL(used(), 64 * MIB);
    OK(cuMemFreeAsync(pointer, stream));
    EQUAL(used(), 0);
    OK(cuStreamSynchronize(stream));
    EQUAL(standin_in_use(0), 0);
    EQUAL(standin_violations(INVALID_USE), 0); /* nobody asked about the pool after its end */
}

static void the_current_pool_is_the_one_that_is_charged(void) {
    CUmemoryPool pool, host;
    CUstream stream;
    CUdeviceptr pointer;
    CUmemPoolProps on_host = {.allocType = 1, .location = {.type = 3}};
    begin();
    OK(cuStreamCreate(&stream, 1));
    OK(cuMemPoolCreate(&pool, &pool_prop));
    OK(cuDeviceSetMemPool(0, pool));
    OK(cuMemAllocAsync(&pointer, 64 * MIB, stream));
    EQUAL(used(), 64 * MIB);
    OUT_OF_MEMORY(cuMemAllocAsync(&pointer, 2 * GIB, stream));
    OK(cuMemPoolCreate(&host, &on_host));
    OK(cuMemAllocFromPoolAsync(&pointer, 64 * GIB, host, stream));
    EQUAL(used(), 64 * MIB);
}

static void a_stream_is_charged_on_its_own_device(void) {
    CUcontext other;
    CUstream stream;
    CUdeviceptr pointer;
    begin();
    OK(cuStreamCreate(&stream, 1)); /* on the first device */
    OK(cuCtxCreate_v2(&other, 0, 1));
    OK(cuMemAllocAsync(&pointer, 64 * MIB, stream));
    EQUAL(used(), 64 * MIB);
    OK(cuMemAllocAsync(&pointer, 2 * GIB, NULL)); /* on the second */
    EQUAL(used(), 64 * MIB);
    OK(cuCtxSetCurrent(NULL));
    OK(cuMemAllocAsync(&pointer, 512, stream)); /* a stream needs no current context */
    EQUAL(used(), 64 * MIB + 32 * MIB);
}

/* ---- graphs ---- */

static CUgraphNode node;

static CUgraph graph_of(uint64_t bytes) {
    CUgraph graph;
    CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = pool_prop, .bytesize = bytes};
    OK(cuGraphCreate(&graph, 0));
    OK(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params));
    return graph;
}

static void a_graph_is_charged_when_it_is_launched(void) {
    CUgraphExec exec, larger;
    begin();
    OK(cuGraphInstantiateWithFlags(&exec, graph_of(512 * MIB), 0));
    EQUAL(used(), 0);
    OK(cuGraphUpload(exec, NULL));
    OK(cuStreamSynchronize(NULL));
    EQUAL(used(), 512 * MIB);
    for (int round = 0; round < 5; round++) {
        OK(cuGraphLaunch(exec, NULL));
        OK(cuStreamSynchronize(NULL));
        EQUAL(used(), 512 * MIB);
    }
    OK(cuGraphInstantiateWithParams(&larger, graph_of(2 * GIB), NULL));
    OUT_OF_MEMORY(cuGraphLaunch_ptsz(larger, NULL));
    CHECK(standin_in_use(0) <= CAP);
    EQUAL(used(), standin_in_use(0));
    OK(cuGraphExecDestroy(larger));
    OK(cuGraphExecDestroy(exec));
    OK(cuDeviceGraphMemTrim(0));
    EQUAL(used(), 0);
}

static void memory_in_a_child_graph_counts(void) {
    CUgraph graph;
    CUgraphExec exec;
    begin();
    OK(cuGraphCreate(&graph, 0));
    OK(cuGraphAddChildGraphNode(&node, graph, NULL, 0, graph_of(2 * GIB)));
    OK(cuGraphInstantiate_v2(&exec, graph, NULL, NULL, 0));
    OUT_OF_MEMORY(cuGraphLaunch(exec, NULL));
    EQUAL(standin_in_use(0), 0);
}

/* ---- reports ---- */

static void the_device_is_reported_as_large_as_the_cap(void) {
    size_t free_bytes = 1, total = 1;
    CUdeviceptr pointer;
    begin();
    OK(cuDeviceTotalMem_v2(&total, 0));
    EQUAL(total, CAP);
    OK(cuDeviceTotalMem_v2(&total, 1));
    EQUAL(total, 4 * GIB);
    OK(cuMemAlloc_v2(&pointer, 256 * MIB));
    OK(cuMemGetInfo_v2(&free_bytes, &total));
    EQUAL(total, CAP);
    EQUAL(free_bytes, CAP - 256 * MIB);
    OK(cuMemGetInfo_v2(NULL, &total));
    OK(cuMemGetInfo_v2(&free_bytes, NULL));
    OK(cuMemGetInfo_v2(NULL, NULL));
    set_cap(64 * GIB);
    OK(cuMemGetInfo_v2(&free_bytes, &total));
    EQUAL(total, 4 * GIB);
    EQUAL(free_bytes, 4 * GIB - 256 * MIB);
    set_cap(128 * MIB);
    OK(cuMemGetInfo_v2(&free_bytes, &total));
    EQUAL(total, 128 * MIB);
    EQUAL(free_bytes, 0);
}

static void nvml_reports_the_same(void) {
    nvmlDevice_t device;
    nvmlMemory_t memory;
    nvmlMemory_v2_t memory2 = {.version = 0x2000028};
    CUdeviceptr pointer;
    begin();
    OK(cuMemAlloc_v2(&pointer, 256 * MIB));
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    CHECK(nvml != NULL);
    int (*init)(void) = dlsym(nvml, "nvmlInit_v2");
    int (*by_index)(unsigned, nvmlDevice_t *) = dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2");
    int (*info)(nvmlDevice_t, nvmlMemory_t *) = dlsym(nvml, "nvmlDeviceGetMemoryInfo");
    int (*info2)(nvmlDevice_t, nvmlMemory_v2_t *) = dlsym(nvml, "nvmlDeviceGetMemoryInfo_v2");
    OK(init());
    OK(by_index(1, &device)); /* NVML's order is not CUDA's */
    OK(info(device, &memory));
    EQUAL(memory.total, CAP);
    EQUAL(memory.free, CAP - 256 * MIB);
    EQUAL(memory.used, 256 * MIB);
    OK(info2(device, &memory2));
    EQUAL(memory2.total, CAP);
    EQUAL(memory2.free, CAP - 256 * MIB);
    EQUAL(memory2.used + memory2.reserved, 256 * MIB);
    OK(by_index(0, &device));
    OK(info(device, &memory));
    EQUAL(memory.total, 4 * GIB);
}

/* ---- processes and threads ---- */

static int end_of(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0)
        CHECK(errno == EINTR);
    return status;
}

static void a_forked_child_begins_with_nothing(void) {
    CUdeviceptr pointer, pooled;
    begin();
    OK(cuMemAlloc_v2(&pointer, 512 * MIB));
    OK(cuMemAllocAsync(&pooled, 64 * MIB, NULL));
    pid_t child = fork();
    if (child == 0) {
        EQUAL(used(), 576 * MIB);
        EQUAL(slots(), 1);
        CUdeviceptr own, more;
        OK(cuMemAlloc_v2(&own, 256 * MIB));
        EQUAL(slots(), 2);
        EQUAL(used(), 832 * MIB);
        OUT_OF_MEMORY(cuMemAlloc_v2(&more, 256 * MIB));
        _exit(0);
    }
    EQUAL(end_of(child), 0);
    EQUAL(peak(), 832 * MIB);
    OK(cuMemAlloc_v2(&pooled, 448 * MIB)); /* the child's part is free again, and does not count as the peak */
    EQUAL(used(), CAP);
    EQUAL(peak(), CAP);
    OK(cuMemFree_v2(pointer));
    EQUAL(used(), 512 * MIB);
}

static void the_dead_do_not_count_towards_the_peak(void) {
    CUdeviceptr pointer;
    begin();
    pid_t child = fork();
    if (child == 0) {
        OK(cuMemAlloc_v2(&pointer, 512 * MIB));
        raise(SIGKILL);
    }
    CHECK(WIFSIGNALED(end_of(child)));
    EQUAL(peak(), 512 * MIB);
    for (int number = 0; number < 6; number++)
        OK(cuMemAlloc_v2(&pointer, 100 * MIB));
    EQUAL(peak(), 600 * MIB);
}

static void a_program_that_another_becomes_begins_with_nothing(void) {
    CUdeviceptr pointer;
    begin();
    if (getenv("BEHAVIOUR_AGAIN") != NULL) {
        CHECK(used() == 0 || used() == 900 * MIB); /* until the first allocation looks */
        OK(cuMemAlloc_v2(&pointer, 800 * MIB));
        EQUAL(used(), 800 * MIB);
        EQUAL(slots(), 1);
        return;
    }
    OK(cuMemAlloc_v2(&pointer, 900 * MIB));
    setenv("BEHAVIOUR_AGAIN", "1", 1);
    char *arguments[] = {"behaviour", (char *)"a_program_that_another_becomes_begins_with_nothing", NULL};
    execv("/proc/self/exe", arguments);
    CHECK(!"exec");
}

enum { THREADS = 8, ROUNDS = 4000 };
static _Atomic int granted_bytes_in_mib, rounds_refused;

static void *allocate_and_free(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    CUdeviceptr pointers[16] = {0};
    CUstream stream;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, 1));
    for (int round = 0; round < ROUNDS; round++) {
        seed = seed * 1103515245u + 12345u;
        unsigned at = seed >> 16 & 15;
        bool pooled = at >= 12;
        if (pointers[at] != 0) {
            OK(pooled ? cuMemFreeAsync(pointers[at], stream) : cuMemFree_v2(pointers[at]));
            pointers[at] = 0;
            continue;
        }
        uint64_t size = (1 + (seed >> 20 & 15)) * 4 * MIB;
        CUresult result = pooled ? cuMemAllocAsync(&pointers[at], size, stream) : cuMemAlloc_v2(&pointers[at], size);
        CHECK(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY);
        if (result != CUDA_SUCCESS) {
            pointers[at] = 0;
            rounds_refused++;
        } else {
            granted_bytes_in_mib += (int)(size / MIB);
        }
        if (round % 64 == 0)
            OK(cuStreamSynchronize(stream));
    }
    for (int at = 0; at < 16; at++)
        if (pointers[at] != 0)
            OK(at >= 12 ? cuMemFreeAsync(pointers[at], stream) : cuMemFree_v2(pointers[at]));
    OK(cuStreamSynchronize(stream));
    return NULL;
}

static void run_threads(void *(*work)(void *)) {
    pthread_t threads[THREADS];
    for (uintptr_t number = 0; number < THREADS; number++)
        EQUAL(pthread_create(&threads[number], NULL, work, (void *)(number + 1)), 0);
    for (int number = 0; number < THREADS; number++)
        EQUAL(pthread_join(threads[number], NULL), 0);
}

static void threads_leave_nothing_behind(void) {
    begin();
    run_threads(allocate_and_free);
    CHECK(rounds_refused > 0 && granted_bytes_in_mib > 0);
    OK(cuCtxSynchronize());
    EQUAL(used() + pending(), 0);
    EQUAL(standin_in_use(0), 0);
    EQUAL(standin_violations(DOUBLE_FREE), 0);
}

static void *fork_often(void *argument) {
    (void)argument;
    OK(cuCtxSetCurrent(context));
    for (int round = 0; round < 40; round++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            /* Whatever the other threads held or were amid, here it must not be in the way. */
            CUdeviceptr pointer;
            CUresult result = cuMemAlloc_v2(&pointer, 4 * MIB);
            CHECK(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY);
            if (result == CUDA_SUCCESS)
                OK(cuMemFree_v2(pointer));
            CHECK(dlsym(RTLD_DEFAULT, "cuMemAlloc_v2") == (void *)&cuMemAlloc_v2);
            _exit(0);
        }
        EQUAL(end_of(child), 0);
    }
    return NULL;
}

static void a_fork_amid_allocations_does_no_harm(void) {
    pthread_t thread;
    begin();
    EQUAL(pthread_create(&thread, NULL, fork_often, NULL), 0);
    run_threads(allocate_and_free);
    EQUAL(pthread_join(thread, NULL), 0);
    OK(cuCtxSynchronize());
    EQUAL(used() + pending(), 0);
    EQUAL(standin_in_use(0), 0);
}

static void *make_and_destroy_pools(void *argument) {
    OK(cuCtxSetCurrent(context));
    CUstream stream;
    OK(cuStreamCreate(&stream, 1));
    for (int round = 0; round < ROUNDS / 20; round++) {
        CUmemoryPool pool;
        CUdeviceptr pointer;
        OK(cuMemPoolCreate(&pool, &pool_prop));
        CUresult result = cuMemAllocFromPoolAsync(&pointer, 32 * MIB, pool, stream);
        if (result == CUDA_SUCCESS)
            OK(cuMemFreeAsync(pointer, stream));
        OK(cuStreamSynchronize((uintptr_t)argument % 2 ? stream : NULL));
        OK(cuMemPoolDestroy(pool));
    }
    return NULL;
}

static void pools_that_come_and_go_in_threads_are_asked_only_while_they_live(void) {
    begin();
    run_threads(make_and_destroy_pools);
    OK(cuCtxSynchronize());
    EQUAL(used() + pending(), 0);
    EQUAL(standin_in_use(0), 0);
    EQUAL(standin_violations(INVALID_USE), 0);
}

static void *map_and_unmap(void *argument) {
    (void)argument;
    CUdeviceptr address;
    OK(cuMemAddressReserve(&address, 64 * MIB, 0, 0, 0));
    for (int round = 0; round < ROUNDS / 10; round++) {
        CUmemGenericAllocationHandle handle;
        CUresult result = cuMemCreate(&handle, 64 * MIB, &block_prop, 0);
        CHECK(result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY);
        if (result != CUDA_SUCCESS)
            continue;
        OK(cuMemMap(address, 64 * MIB, 0, handle, 0));
        OK(cuMemRelease(handle));
        OK(cuMemUnmap(address, 64 * MIB));
    }
    return NULL;
}

static void virtual_memory_of_threads_leaves_nothing_behind(void) {
    begin();
    run_threads(map_and_unmap);
    EQUAL(used() + pending(), 0);
    EQUAL(standin_in_use(0), 0);
}

static void a_look_up_that_is_not_ours_is_the_callers_own(void) {
    /* RTLD_NEXT means what it means by the address that the real dlsym returns to. */
    CHECK(dlsym(RTLD_NEXT, "standin_in_use") == (void *)&standin_in_use);
    CHECK(dlsym(RTLD_DEFAULT, "no_such_function") == NULL);
    CHECK(dlerror() != NULL);
    CHECK(dlsym(RTLD_NEXT, "cuMemAlloc_v2") != NULL);
    CHECK(dlerror() == NULL);
    CHECK(dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuNoSuchFunction") == NULL);
    CHECK(dlerror() != NULL);
    void *first_version = dlsym(dlopen("libcuda.so.1", RTLD_LAZY), "cuMemAlloc"); /* hooked is only the second */
    CHECK(first_version != NULL && first_version != (void *)&cuMemAlloc_v2);
}

#define BEHAVIOUR(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} behaviours[] = {
    BEHAVIOUR(the_cap_is_reached_exactly_and_never_passed),
    BEHAVIOUR(a_refusal_is_noted_with_what_was_asked_and_held),
    BEHAVIOUR(sizes_that_no_device_has_are_refused_without_a_trace),
    BEHAVIOUR(what_the_driver_refuses_is_rolled_back),
    BEHAVIOUR(an_unknown_address_always_reaches_the_driver),
    BEHAVIOUR(a_free_that_fails_keeps_the_charge),
    BEHAVIOUR(without_a_context_the_driver_answers_for_itself),
    BEHAVIOUR(a_change_of_the_cap_holds_from_the_next_allocation_on),
    BEHAVIOUR(what_the_driver_takes_for_itself_counts_towards_the_cap),
    BEHAVIOUR(another_device_is_not_counted),
    BEHAVIOUR(arrays_without_memory_are_not_charged),
    BEHAVIOUR(a_mipmapped_array_is_charged_with_all_its_levels),
    BEHAVIOUR(a_context_takes_its_memory_along),
    BEHAVIOUR(the_primary_context_takes_its_memory_along_with_its_last_user),
    BEHAVIOUR(a_mapping_outlives_the_handle),
    BEHAVIOUR(a_handle_outlives_the_mapping),
    BEHAVIOUR(a_retained_handle_keeps_the_memory),
    BEHAVIOUR(one_unmap_may_end_several_mappings),
    BEHAVIOUR(host_memory_and_other_devices_are_not_charged),
    BEHAVIOUR(a_pool_is_charged_with_what_it_keeps),
    BEHAVIOUR(each_synchronisation_takes_off_what_it_frees),
    BEHAVIOUR(at_the_cap_a_pool_serves_from_what_it_has),
    BEHAVIOUR(growth_past_the_cap_is_undone),
    BEHAVIOUR(idle_pools_make_room_for_other_memory),
    BEHAVIOUR(what_outlives_its_pool_stays_charged),
    BEHAVIOUR(the_current_pool_is_the_one_that_is_charged),
    BEHAVIOUR(a_stream_is_charged_on_its_own_device),
    BEHAVIOUR(a_graph_is_charged_when_it_is_launched),
    BEHAVIOUR(memory_in_a_child_graph_counts),
    BEHAVIOUR(the_device_is_reported_as_large_as_the_cap),
    BEHAVIOUR(nvml_reports_the_same),
    BEHAVIOUR(a_forked_child_begins_with_nothing),
    BEHAVIOUR(the_dead_do_not_count_towards_the_peak),
    BEHAVIOUR(a_program_that_another_becomes_begins_with_nothing),
    BEHAVIOUR(threads_leave_nothing_behind),
    BEHAVIOUR(a_fork_amid_allocations_does_no_harm),
    BEHAVIOUR(pools_that_come_and_go_in_threads_are_asked_only_while_they_live),
    BEHAVIOUR(virtual_memory_of_threads_leaves_nothing_behind),
    BEHAVIOUR(a_look_up_that_is_not_ours_is_the_callers_own),
};

int main(int argc, char **argv) {
    int count = sizeof behaviours / sizeof *behaviours;
    for (int number = 0; argc == 2 && number < count; number++) {
        if (strcmp(argv[1], "--list") == 0)
            puts(behaviours[number].name);
        if (strcmp(argv[1], behaviours[number].name) != 0)
            continue;
        const char *path = getenv("JUPYTER_GPU_ACCOUNT");
        CHECK(path != NULL && jgpu_account_open(&account, path));
        behaviours[number].run();
        EQUAL(standin_violations(WRONG_VERSION), 0);
        puts("held");
        return 0;
    }
    return argc == 2 && strcmp(argv[1], "--list") == 0 ? 0 : 2;
}
