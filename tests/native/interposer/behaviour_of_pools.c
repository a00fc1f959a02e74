/* Pools and graphs. */
#include "behaviour.h"

/* ---- pools ---- */

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
    /* 256 MiB are idle, but in pieces: the driver lets the pool grow, past the cap. What is in pieces is given back
     * then, and it grows below the cap. */
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

static void at_the_cap_a_graph_is_launched_again_and_again(void) {
    CUgraphExec exec, other;
    CUdeviceptr linear;
    begin();
    OK(cuGraphInstantiateWithFlags(&exec, graph_of(608 * MIB), 0));
    OK(cuGraphInstantiateWithFlags(&other, graph_of(608 * MIB), 0));
    for (int round = 0; round < 5; round++) /* each while the one before runs */
        OK(cuGraphLaunch(exec, NULL));
    EQUAL(used(), 608 * MIB);
    OK(cuMemAlloc_v2(&linear, CAP - 608 * MIB));
    OK(cuGraphLaunch(exec, NULL));
    OUT_OF_MEMORY(cuGraphLaunch(other, NULL));
    OK(cuStreamSynchronize(NULL));
    OK(cuGraphLaunch(exec, NULL));
    OK(cuStreamSynchronize(NULL));
    OK(cuMemFree_v2(linear));
    for (int round = 0; round < 3; round++) { /* what one had is given back for the other */
        OK(cuGraphLaunch(round % 2 == 0 ? other : exec, NULL));
        OK(cuStreamSynchronize(NULL));
        EQUAL(used(), standin_in_use(0));
        CHECK(standin_in_use(0) <= CAP);
    }
    EQUAL(pending(), 0);
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

const struct behaviour behaviours_of_pools[] = {
    BEHAVIOUR(a_pool_is_charged_with_what_it_keeps),
    BEHAVIOUR(each_synchronisation_takes_off_what_it_frees),
    BEHAVIOUR(at_the_cap_a_pool_serves_from_what_it_has),
    BEHAVIOUR(growth_past_the_cap_is_undone),
    BEHAVIOUR(idle_pools_make_room_for_other_memory),
    BEHAVIOUR(what_outlives_its_pool_stays_charged),
    BEHAVIOUR(the_current_pool_is_the_one_that_is_charged),
    BEHAVIOUR(a_stream_is_charged_on_its_own_device),
    BEHAVIOUR(a_graph_is_charged_when_it_is_launched),
    BEHAVIOUR(at_the_cap_a_graph_is_launched_again_and_again),
    BEHAVIOUR(memory_in_a_child_graph_counts),
    {NULL, NULL},
};
