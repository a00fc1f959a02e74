/* Nanoseconds per call pair, `bench PAIRS [THREADS]`: one line per kind of pair. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../../jupyter_gpu/limits/interposer/driver_functions.h"

CUresult cuInit(unsigned int flags);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuGraphCreate(CUgraph *graph, unsigned int flags);
CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value);

static double now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void must(CUresult result) {
    if (result != CUDA_SUCCESS)
        exit(1);
}

#define MEASURE(name, pair)                                                                                            \
    do {                                                                                                               \
        for (int warm_up = 0; warm_up < 1000; warm_up++)                                                               \
            pair;                                                                                                      \
        double begin = now_ns();                                                                                       \
        for (int number = 0; number < pairs; number++)                                                                 \
            pair;                                                                                                      \
        printf("%s %.1f\n", name, (now_ns() - begin) / pairs);                                                         \
    } while (0)

int main(int argc, char **argv) {
    int pairs = argc > 1 ? atoi(argv[1]) : 200000;
    CUcontext context;
    CUdeviceptr pointer, kept[1000];
    CUstream stream;
    CUmemoryPool pool;
    CUgraph graph;
    CUgraphExec exec;
    size_t free_bytes, total;
    uint64_t keep = UINT64_MAX;
    const CUmemAllocationProp prop = {.type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUmemGenericAllocationHandle block;
    must(cuInit(0));
    must(cuDevicePrimaryCtxRetain(&context, 0));
    must(cuCtxSetCurrent(context));
    must(cuStreamCreate(&stream, 1));
    for (int number = 0; number < 1000; number++) /* a program holds something besides */
        must(cuMemAlloc_v2(&kept[number], 4096));
    MEASURE("cuMemAlloc+cuMemFree", (must(cuMemAlloc_v2(&pointer, 1 << 20)), must(cuMemFree_v2(pointer))));
    must(cuDeviceGetDefaultMemPool(&pool, 0));
    must(cuMemPoolSetAttribute(pool, 4, &keep));
    MEASURE("cuMemAllocAsync+cuMemFreeAsync",
            (must(cuMemAllocAsync(&pointer, 1 << 20, stream)), must(cuMemFreeAsync(pointer, stream))));
    MEASURE("cuMemCreate+cuMemRelease", (must(cuMemCreate(&block, 2 << 20, &prop, 0)), must(cuMemRelease(block))));
    must(cuGraphCreate(&graph, 0));
    must(cuGraphInstantiateWithFlags(&exec, graph, 0));
    MEASURE("cuGraphLaunch+cuStreamSynchronize",
            (must(cuGraphLaunch(exec, stream)), must(cuStreamSynchronize(stream))));
    MEASURE("cuMemGetInfo", must(cuMemGetInfo_v2(&free_bytes, &total)));
    return 0;
}
