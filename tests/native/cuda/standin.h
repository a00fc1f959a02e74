/* A CUDA driver without a device: the bookkeeping of one, strict about how it is called.
 *
 * Settings come from the environment:
 *   STANDIN_CUDA_DEVICES  bytes of each device, separated by commas; 8 GiB of one by default
 *   STANDIN_CUDA_SHARED   a file through which processes share the devices
 *   STANDIN_CUDA_LIMIT    bytes; more than that in use at once on device 0, by living processes, is a violation
 *   STANDIN_CUDA_TRACE    a file that gets a line per call
 *   STANDIN_CUDA_SECOND_ADDRESSES  1: cuGetProcAddress answers with other addresses than dlsym
 */
#ifndef STANDIN_H
#define STANDIN_H

#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../jupyter_gpu/limits/interposer/driver.h"

#ifndef STANDIN_VERSION
#define STANDIN_VERSION 13000
#endif

enum {
    STANDIN_MOST_DEVICES = 8,
    STANDIN_INVALID_CONTEXT = 201,
    STANDIN_INVALID_HANDLE = 400,
    STANDIN_POOL_STEP = 32 << 20,
    STANDIN_GRANULARITY = 2 << 20,
};

enum violation {
    DOUBLE_FREE,
    WRONG_VERSION,
    NO_CONTEXT,
    INVALID_USE,
    OVER_LIMIT,
    FARTHER_OVER_LIMIT, /* by more than one taking, or while other processes have a part */
    VIOLATIONS
};

#define API __attribute__((visibility("default")))

/* What a test may ask. */
API unsigned long standin_violations(int which);
API uint64_t standin_in_use(int device);
API uint64_t standin_most_in_use(int device);
API unsigned long standin_calls(const char *name);

extern pthread_mutex_t standin_lock; /* over all of the driver's state */
extern bool standin_initialised;

int standin_device_count(void);
bool standin_is_device(int device);
uint64_t standin_size(int device);
/* Take memory of a device; false: out of memory. */
bool standin_take(int device, uint64_t bytes);
void standin_give(int device, uint64_t bytes);
void standin_violation(enum violation which, const char *where);
CUresult standin_trace(const char *name, CUresult result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The context of this thread; NULL, with the violation noted, where there is none. */
struct CUctx_st *standin_context(const char *where);

struct CUctx_st {
    unsigned magic;
    int device;
    bool is_primary;
    unsigned retained;
};

struct CUstream_st {
    unsigned magic;
    struct CUctx_st *context;
    bool capturing;
    struct CUgraph_st *graph;
};

/* Addresses. A freed one is the first to be given again, as a driver may do. */
CUdeviceptr standin_new_address(uint64_t bytes);
void standin_free_address(CUdeviceptr address, uint64_t bytes);
/* Linear memory, under the lock. */
CUresult standin_allocate(CUdeviceptr *pointer, uint64_t bytes, const char *where);
bool standin_is_allocation(CUdeviceptr pointer, uint64_t *bytes);
void standin_drop_context_memory(struct CUctx_st *context);
/* Memory of pools, under the lock. */
bool standin_free_to_pool(CUdeviceptr pointer, struct CUstream_st *stream, bool at_once);
void standin_synchronise(struct CUstream_st *stream); /* NULL: all */
void standin_capture_allocation(struct CUgraph_st *graph, CUdeviceptr *pointer, size_t size, int device);
void standin_finish_graphs(void);
void standin_drop_arrays(struct CUctx_st *context);

#endif
