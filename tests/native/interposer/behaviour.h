/* What the behaviours share: an account that they read, and the driver that they call. */
#ifndef BEHAVIOUR_H
#define BEHAVIOUR_H

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

extern struct jgpu_account account;
extern CUcontext context;

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

struct behaviour {
    const char *name;
    void (*run)(void);
};
#define BEHAVIOUR(name) {#name, name}
/* Of one file each; the last has no name. */
extern const struct behaviour behaviours_of_memory[], behaviours_of_virtual_memory[], behaviours_of_pools[],
    behaviours_of_processes[];

/* What the lease has on the first device, in bytes. */
uint64_t used(void);
uint64_t pending(void);
uint64_t peak(void);
void set_cap(uint64_t cap);
/* Processes that have a slot. */
unsigned slots(void);
/* Start CUDA, and make the first device's primary context current. */
void begin(void);

/* Memory on the first device. */
static const CUmemAllocationProp block_prop __attribute__((unused)) = {
    .type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
static const CUmemPoolProps pool_prop __attribute__((unused)) = {
    .allocType = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};

#endif
