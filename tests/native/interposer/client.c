/* A CUDA program that takes all the memory it is given, in one way of allocating, having found the driver's functions
 * in one way of looking them up.
 *
 *     client LOOKUP WAY
 *
 * It links the driver. It prints how many bytes it got, and, having freed all, how many it got a second time.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../jupyter_gpu/limits/interposer/driver_functions.h"

enum { UNIT = 64 << 20, MOST = 4096 };

CUresult cuInit(unsigned int flags);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuGraphCreate(CUgraph *graph, unsigned int flags);
CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                CUDA_MEM_ALLOC_NODE_PARAMS *params);
CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode);
CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph);

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        int must_result = (int)(call);                                                                                 \
        if (must_result != 0) {                                                                                        \
            fprintf(stderr, "%s = %d\n", #call, must_result);                                                          \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static const char *lookup;

/* `name` at `version` is what cuGetProcAddress knows; the symbol is what the linker does. */
static void *function(const char *symbol, const char *name, int version, bool per_thread) {
    static const char *driver = "libcuda.so.1";
    void *found = NULL, *resolver = NULL;
    if (strcmp(lookup, "default") == 0) {
        found = dlsym(RTLD_DEFAULT, symbol);
    } else if (strcmp(lookup, "next") == 0) {
        found = dlsym(RTLD_NEXT, symbol);
    } else if (strcmp(lookup, "handle") == 0) {
        found = dlsym(dlopen(driver, RTLD_LAZY), symbol);
    } else if (strcmp(lookup, "main") == 0) {
        found = dlsym(dlopen(NULL, RTLD_LAZY), symbol);
    } else if (strcmp(lookup, "versioned") == 0) {
        found = dlvsym(dlopen(driver, RTLD_LAZY), symbol, "STANDIN_1");
    } else if (strcmp(lookup, "versioned-default") == 0) {
        found = dlvsym(RTLD_DEFAULT, symbol, "STANDIN_1");
    } else if (strcmp(lookup, "dlsym-by-dlsym") == 0) {
        void *(*look_up)(void *, const char *) = dlsym(RTLD_NEXT, "dlsym");
        found = look_up(dlopen(driver, RTLD_LAZY), symbol);
    } else if (strcmp(lookup, "dlsym-by-dlvsym") == 0) {
#if defined(__aarch64__)
        void *(*look_up)(void *, const char *) = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.17");
#else
        void *(*look_up)(void *, const char *) = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
#endif
        found = look_up(dlopen(driver, RTLD_LAZY), symbol);
    } else if (strcmp(lookup, "procaddress") == 0) {
        MUST(cuGetProcAddress(name, &found, version, per_thread ? 2 : 1));
    } else if (strcmp(lookup, "procaddress2") == 0) {
        CUdriverProcAddressQueryResult status;
        MUST(cuGetProcAddress_v2(name, &found, version, per_thread ? 2 : 1, &status));
    } else if (strcmp(lookup, "recursive") == 0) {
        /* As the CUDA runtime does: one by dlsym, by which another, by which a third, by which all else. */
        CUdriverProcAddressQueryResult status;
        CUresult (*first)(const char *, void **, int, cuuint64_t) =
            dlsym(dlopen(driver, RTLD_LAZY), "cuGetProcAddress");
        MUST(first("cuGetProcAddress", &resolver, 11030, 0));
        first = resolver;
        MUST(first("cuGetProcAddress", &resolver, 12000, 0));
        CUresult (*second)(const char *, void **, int, cuuint64_t, CUdriverProcAddressQueryResult *) = resolver;
        MUST(second(name, &found, version, per_thread ? 2 : 1, &status));
    }
    if (found == NULL) {
        fprintf(stderr, "%s not found by %s\n", symbol, lookup);
        exit(1);
    }
    return found;
}

/* Linked directly, the call goes to the symbol itself. */
#define FUNCTION(symbol, name, version, per_thread)                                                                    \
    __typeof__(&symbol) use_##symbol =                                                                                 \
        strcmp(lookup, "direct") == 0 ? symbol : (__typeof__(&symbol))function(#symbol, #name, version, per_thread)

static CUdeviceptr pointers[MOST];
static void *handles[MOST];
static CUstream stream;
static const CUmemPoolProps on_device = {.allocType = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
static const CUmemAllocationProp block = {.type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};

/* Allocate until there is no more, free all, and say how much it was. */
#define FILL(allocate, free_one)                                                                                       \
    do {                                                                                                               \
        int count = 0;                                                                                                 \
        CUresult result = 0;                                                                                           \
        while (count < MOST && (result = (allocate)) == 0)                                                             \
            count++;                                                                                                   \
        if (result != CUDA_ERROR_OUT_OF_MEMORY) {                                                                      \
            fprintf(stderr, "%s = %d after %d\n", #allocate, (int)result, count);                                      \
            exit(1);                                                                                                   \
        }                                                                                                              \
        granted = (unsigned long long)count * UNIT;                                                                    \
        while (count-- > 0)                                                                                            \
            MUST(free_one);                                                                                            \
    } while (0)

static unsigned long long fill(const char *way) {
    unsigned long long granted = 0;
    if (strcmp(way, "linear") == 0) {
        FUNCTION(cuMemAlloc_v2, cuMemAlloc, 3020, false);
        FUNCTION(cuMemFree_v2, cuMemFree, 3020, false);
        FILL(use_cuMemAlloc_v2(&pointers[count], UNIT), use_cuMemFree_v2(pointers[count]));
    } else if (strcmp(way, "pitched") == 0) {
        size_t pitch;
        FUNCTION(cuMemAllocPitch_v2, cuMemAllocPitch, 3020, false);
        FUNCTION(cuMemFree_v2, cuMemFree, 3020, false);
        FILL(use_cuMemAllocPitch_v2(&pointers[count], &pitch, 1000, UNIT / 1024, 4), use_cuMemFree_v2(pointers[count]));
    } else if (strcmp(way, "managed") == 0) {
        FUNCTION(cuMemAllocManaged, cuMemAllocManaged, 6000, false);
        FUNCTION(cuMemFree_v2, cuMemFree, 3020, false);
        FILL(use_cuMemAllocManaged(&pointers[count], UNIT, 1), use_cuMemFree_v2(pointers[count]));
    } else if (strcmp(way, "async") == 0) {
        FUNCTION(cuMemAllocAsync, cuMemAllocAsync, 11020, false);
        FUNCTION(cuMemFreeAsync, cuMemFreeAsync, 11020, false);
        FILL(use_cuMemAllocAsync(&pointers[count], UNIT, stream), use_cuMemFreeAsync(pointers[count], stream));
    } else if (strcmp(way, "async-per-thread") == 0) {
        FUNCTION(cuMemAllocAsync_ptsz, cuMemAllocAsync, 11020, true);
        FUNCTION(cuMemFreeAsync_ptsz, cuMemFreeAsync, 11020, true);
        FILL(use_cuMemAllocAsync_ptsz(&pointers[count], UNIT, NULL), use_cuMemFreeAsync_ptsz(pointers[count], NULL));
    } else if (strcmp(way, "pool") == 0 || strcmp(way, "pool-per-thread") == 0) {
        CUmemoryPool pool;
        FUNCTION(cuMemPoolCreate, cuMemPoolCreate, 11020, false);
        FUNCTION(cuMemPoolDestroy, cuMemPoolDestroy, 11020, false);
        FUNCTION(cuStreamSynchronize, cuStreamSynchronize, 2000, false);
        MUST(use_cuMemPoolCreate(&pool, &on_device));
        if (strcmp(way, "pool") == 0) {
            FUNCTION(cuMemAllocFromPoolAsync, cuMemAllocFromPoolAsync, 11020, false);
            FUNCTION(cuMemFreeAsync, cuMemFreeAsync, 11020, false);
            FILL(use_cuMemAllocFromPoolAsync(&pointers[count], UNIT, pool, stream),
                 use_cuMemFreeAsync(pointers[count], stream));
        } else {
            FUNCTION(cuMemAllocFromPoolAsync_ptsz, cuMemAllocFromPoolAsync, 11020, true);
            FUNCTION(cuMemFreeAsync_ptsz, cuMemFreeAsync, 11020, true);
            FILL(use_cuMemAllocFromPoolAsync_ptsz(&pointers[count], UNIT, pool, stream),
                 use_cuMemFreeAsync_ptsz(pointers[count], stream));
        }
        MUST(use_cuStreamSynchronize(stream));
        MUST(use_cuMemPoolDestroy(pool));
    } else if (strcmp(way, "virtual") == 0) {
        CUmemGenericAllocationHandle *blocks = (void *)pointers;
        FUNCTION(cuMemCreate, cuMemCreate, 10020, false);
        FUNCTION(cuMemRelease, cuMemRelease, 10020, false);
        FILL(use_cuMemCreate(&blocks[count], UNIT, &block, 0), use_cuMemRelease(blocks[count]));
    } else if (strcmp(way, "array") == 0) {
        CUDA_ARRAY_DESCRIPTOR shape = {.Width = 4096, .Height = UNIT / 4096 / 16, .Format = 0x20, .NumChannels = 4};
        FUNCTION(cuArrayCreate_v2, cuArrayCreate, 3020, false);
        FUNCTION(cuArrayDestroy, cuArrayDestroy, 2000, false);
        FILL(use_cuArrayCreate_v2((CUarray *)&handles[count], &shape), use_cuArrayDestroy(handles[count]));
    } else if (strcmp(way, "array3d") == 0) {
        CUDA_ARRAY3D_DESCRIPTOR shape = {
            .Width = 1024, .Height = 1024, .Depth = UNIT / (1 << 21), .Format = 0x10, .NumChannels = 1};
        FUNCTION(cuArray3DCreate_v2, cuArray3DCreate, 3020, false);
        FUNCTION(cuArrayDestroy, cuArrayDestroy, 2000, false);
        FILL(use_cuArray3DCreate_v2((CUarray *)&handles[count], &shape), use_cuArrayDestroy(handles[count]));
    } else if (strcmp(way, "mipmap") == 0) {
        CUDA_ARRAY3D_DESCRIPTOR shape = {.Width = 4096, .Height = 4096, .Format = 0x20, .NumChannels = 1};
        FUNCTION(cuMipmappedArrayCreate, cuMipmappedArrayCreate, 5000, false);
        FUNCTION(cuMipmappedArrayDestroy, cuMipmappedArrayDestroy, 5000, false);
        FILL(use_cuMipmappedArrayCreate((CUmipmappedArray *)&handles[count], &shape, 1),
             use_cuMipmappedArrayDestroy(handles[count]));
    } else if (strcmp(way, "graph") == 0 || strcmp(way, "capture") == 0) {
        /* One graph with ever more memory, as it stays in the device's pool of graph memory. */
        FUNCTION(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags, 11040, false);
        FUNCTION(cuGraphLaunch, cuGraphLaunch, 10000, false);
        FUNCTION(cuGraphExecDestroy, cuGraphExecDestroy, 10000, false);
        FUNCTION(cuStreamSynchronize, cuStreamSynchronize, 2000, false);
        FUNCTION(cuDeviceGraphMemTrim, cuDeviceGraphMemTrim, 11040, false);
        FUNCTION(cuMemAllocAsync, cuMemAllocAsync, 11020, false);
        CUresult result = 0;
        for (int nodes = 1; result == 0 && nodes < 64; nodes++) {
            CUgraph graph;
            CUgraphExec exec;
            if (strcmp(way, "capture") == 0)
                MUST(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
            else
                MUST(cuGraphCreate(&graph, 0));
            for (int node = 0; node < nodes; node++) {
                CUgraphNode added;
                CUDA_MEM_ALLOC_NODE_PARAMS params = {.poolProps = on_device, .bytesize = UNIT * 2};
                if (strcmp(way, "capture") == 0)
                    MUST(use_cuMemAllocAsync(&params.dptr, UNIT * 2, stream));
                else
                    MUST(cuGraphAddMemAllocNode(&added, graph, NULL, 0, &params));
            }
            if (strcmp(way, "capture") == 0)
                MUST(cuStreamEndCapture(stream, &graph));
            MUST(use_cuGraphInstantiateWithFlags(&exec, graph, 0));
            result = use_cuGraphLaunch(exec, stream);
            MUST(use_cuStreamSynchronize(stream));
            MUST(use_cuGraphExecDestroy(exec));
            if (result == 0)
                granted = (unsigned long long)nodes * UNIT * 2;
        }
        if (result != 0 && result != CUDA_ERROR_OUT_OF_MEMORY)
            exit(1);
        MUST(use_cuDeviceGraphMemTrim(0));
    } else {
        fprintf(stderr, "unknown way %s\n", way);
        exit(2);
    }
    return granted;
}

static void *fill_in_thread(void *way) {
    unsigned long long *granted = malloc(sizeof *granted);
    *granted = fill(way);
    return granted;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    lookup = argv[1];
    CUcontext context;
    MUST(cuInit(0));
    unsigned long long first, again;
    if (strcmp(argv[2], "virtual-without-context") == 0) {
        /* A thread that never made a context current, as in worker threads of frameworks. */
        pthread_t thread;
        void *granted;
        pthread_create(&thread, NULL, fill_in_thread, "virtual");
        pthread_join(thread, &granted);
        first = *(unsigned long long *)granted;
        free(granted);
        again = fill("virtual");
    } else {
        FUNCTION(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, false);
        MUST(use_cuDevicePrimaryCtxRetain(&context, 0));
        MUST(cuCtxSetCurrent(context));
        MUST(cuStreamCreate(&stream, 1));
        first = fill(argv[2]);
        again = fill(argv[2]);
    }
    printf("%llu %llu\n", first, again);
    return 0;
}
