/* One of several processes of a lease that race for its memory, for some seconds or until it is killed:
 *
 *     race SECONDS SEED [pools]
 *
 * Several threads allocate and free in several ways, from pools too if asked to. Prints how often it was granted and
 * refused.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../../jupyter_gpu/limits/interposer/driver_functions.h"

CUresult cuInit(unsigned int flags);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);

enum { THREADS = 3, HELD = 12 };

static CUcontext context;
static time_t end;
static int with_pools;
static _Atomic unsigned long granted, refused, wrong;

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) != CUDA_SUCCESS)                                                                                    \
            wrong++;                                                                                                   \
    } while (0)

static void *work(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    CUdeviceptr pointers[HELD] = {0};
    CUmemGenericAllocationHandle blocks[HELD] = {0};
    const CUmemAllocationProp prop = {.type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    CUstream stream;
    MUST(cuCtxSetCurrent(context));
    MUST(cuStreamCreate(&stream, 1));
    while (time(NULL) < end) {
        seed = seed * 1103515245u + 12345u;
        unsigned at = (seed >> 16) % HELD, way = at % 4 == 1 && !with_pools ? 2 : at % 4;
        if (pointers[at] != 0 || blocks[at] != 0) {
            if (way == 0)
                MUST(cuMemRelease(blocks[at]));
            else if (way == 1)
                MUST(cuMemFreeAsync(pointers[at], stream));
            else
                MUST(cuMemFree_v2(pointers[at]));
            pointers[at] = blocks[at] = 0;
            if ((seed >> 8) % 8 == 0)
                MUST(cuStreamSynchronize(stream));
            continue;
        }
        size_t size = (size_t)(1 + (seed >> 20) % 24) * (8 << 20);
        CUresult result = way == 0   ? cuMemCreate(&blocks[at], size, &prop, 0)
                          : way == 1 ? cuMemAllocAsync(&pointers[at], size, stream)
                                     : cuMemAlloc_v2(&pointers[at], size);
        if (result == CUDA_SUCCESS) {
            granted++;
            continue;
        }
        pointers[at] = blocks[at] = 0;
        if (result == CUDA_ERROR_OUT_OF_MEMORY)
            refused++;
        else
            wrong++;
    }
    /* Ends holding what it holds, as programs do. */
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    with_pools = argc > 3;
    end = time(NULL) + atoi(argv[1]);
    MUST(cuInit(0));
    MUST(cuDevicePrimaryCtxRetain(&context, 0));
    pthread_t threads[THREADS];
    for (int number = 0; number < THREADS; number++)
        if (pthread_create(&threads[number], NULL, work, (void *)(uintptr_t)(atoi(argv[2]) * 1000 + number)) != 0)
            return 1;
    for (int number = 0; number < THREADS; number++)
        pthread_join(threads[number], NULL);
    printf("%lu %lu %lu\n", granted, refused, wrong);
    return wrong != 0;
}
