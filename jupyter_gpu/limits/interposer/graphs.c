/* Graphs with memory nodes: their memory is taken when they are uploaded or launched. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "forget.h"
#include "pools.h"

/* An executable graph that takes memory: on one device, for such a node names one, and graphs over several are rare
 * enough to keep a record for each. */
struct exec {
    struct exec *next;
    CUgraphExec handle;
    CUdevice device;
    uint64_t bytes;
    /* One more than the trims that there had been when it was last launched; 0: never. Until the next one its memory
     * stays mapped, and the driver counts it as used. */
    uint64_t mapped_since;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct exec *execs;
static _Atomic bool any; /* spares every launch the lock where no graph takes memory */

void jgpu_forget_graphs(void) {
    pthread_mutex_init(&lock, NULL);
    execs = NULL;
    atomic_store(&any, false);
}

/* The bytes that the allocation nodes of a graph ask for, by device. */
static void add_up(CUgraph graph, uint64_t bytes[JGPU_MOST_DEVICES], int depth) {
    __typeof__(&cuGraphGetNodes) get_nodes = JGPU_REAL(cuGraphGetNodes);
    __typeof__(&cuGraphNodeGetType) get_type = JGPU_REAL(cuGraphNodeGetType);
    __typeof__(&cuGraphChildGraphNodeGetGraph) get_child = JGPU_REAL(cuGraphChildGraphNodeGetGraph);
    __typeof__(&cuGraphMemAllocNodeGetParams) get_params = JGPU_REAL(cuGraphMemAllocNodeGetParams);
    size_t count = 0;
    if (get_params == NULL || get_nodes == NULL || get_type == NULL || get_nodes(graph, NULL, &count) != CUDA_SUCCESS ||
        count == 0)
        return;
    CUgraphNode *nodes = calloc(count, sizeof *nodes);
    if (nodes == NULL || get_nodes(graph, nodes, &count) != CUDA_SUCCESS)
        count = 0;
    for (size_t number = 0; number < count; number++) {
        CUgraphNodeType type;
        CUDA_MEM_ALLOC_NODE_PARAMS params;
        CUgraph child;
        if (get_type(nodes[number], &type) != CUDA_SUCCESS)
            continue;
        if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && get_params(nodes[number], &params) == CUDA_SUCCESS) {
            int device = params.poolProps.location.id;
            if (params.poolProps.location.type == CU_MEM_LOCATION_TYPE_DEVICE && device >= 0 &&
                (unsigned)device < JGPU_MOST_DEVICES)
                bytes[device] += params.bytesize;
        }
        if (type == CU_GRAPH_NODE_TYPE_GRAPH && depth < 16 && get_child != NULL &&
            get_child(nodes[number], &child) == CUDA_SUCCESS)
            add_up(child, bytes, depth + 1);
    }
    free(nodes);
}

static void forget_exec(CUgraphExec handle) {
    pthread_mutex_lock(&lock);
    for (struct exec **at = &execs; *at != NULL;) {
        struct exec *exec = *at;
        if (exec->handle == handle) {
            *at = exec->next;
            free(exec);
        } else {
            at = &exec->next;
        }
    }
    pthread_mutex_unlock(&lock);
}

static CUresult instantiated(CUresult result, CUgraph graph, const CUgraphExec *handle) {
    if (result != CUDA_SUCCESS || handle == NULL || jgpu_inside != 0 || !jgpu_is_counted())
        return result;
    uint64_t bytes[JGPU_MOST_DEVICES] = {0};
    add_up(graph, bytes, 0);
    forget_exec(*handle);
    for (unsigned device = 0; device < JGPU_MOST_DEVICES; device++) {
        if (bytes[device] == 0)
            continue;
        struct exec *exec = malloc(sizeof *exec);
        if (exec == NULL)
            continue;
        *exec = (struct exec){.handle = *handle, .device = (CUdevice)device, .bytes = bytes[device]};
        pthread_mutex_lock(&lock);
        exec->next = execs;
        execs = exec;
        pthread_mutex_unlock(&lock);
        atomic_store(&any, true);
    }
    return result;
}

/* What an executable graph takes on the devices from `device` on; false when there is no more. */
static bool next_of(CUgraphExec handle, CUdevice *device, uint64_t *bytes, uint64_t *mapped_since) {
    bool found = false;
    CUdevice least = 0;
    pthread_mutex_lock(&lock);
    for (const struct exec *exec = execs; exec != NULL; exec = exec->next) {
        if (exec->handle == handle && exec->device >= *device && (!found || exec->device < least)) {
            found = true;
            least = exec->device;
            *bytes = exec->bytes;
            *mapped_since = exec->mapped_since;
        }
    }
    pthread_mutex_unlock(&lock);
    *device = least;
    return found;
}

static void note_mapped(CUgraphExec handle, CUdevice device, uint64_t since) {
    pthread_mutex_lock(&lock);
    for (struct exec *exec = execs; exec != NULL; exec = exec->next)
        if (exec->handle == handle && exec->device == device)
            exec->mapped_since = since;
    pthread_mutex_unlock(&lock);
}

/* Upload or launch. What it needs on all its devices is let through, or none of it. */
static CUresult run(CUresult (*real)(CUgraphExec, CUstream), CUgraphExec handle, CUstream stream) {
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!atomic_load_explicit(&any, memory_order_relaxed) || jgpu_inside != 0 || !jgpu_is_counted())
        return real(handle, stream);
    struct jgpu_growth growths[JGPU_MOST_DEVICES];
    uint64_t since[JGPU_MOST_DEVICES];
    CUdevice devices[JGPU_MOST_DEVICES];
    unsigned count = 0;
    bool refused = false;
    uint64_t bytes, mapped_since;
    for (CUdevice device = 0;
         !refused && count < JGPU_MOST_DEVICES && next_of(handle, &device, &bytes, &mapped_since); device++) {
        struct jgpu_pool *pool = jgpu_graph_pool(device);
        if (pool == NULL)
            continue;
        uint64_t now = jgpu_trims(pool) + 1;
        refused = !jgpu_begin_growth(&growths[count], pool, bytes, mapped_since == now ? bytes : 0) &&
                  !jgpu_begin_growth_below_cap(&growths[count], pool, bytes);
        if (refused) {
            jgpu_put_pool(pool);
            continue;
        }
        devices[count] = device;
        since[count++] = jgpu_trims(pool) + 1; /* asked again, since room may have been made by a trim */
    }
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (!refused)
        JGPU_CALL(result, real(handle, stream));
    while (count > 0) {
        if (jgpu_end_growth(&growths[--count], result == CUDA_SUCCESS)) /* what is launched cannot be taken back */
            jgpu_growth_is_undone(&growths[count]);
        if (result == CUDA_SUCCESS)
            note_mapped(handle, devices[count], since[count]);
        jgpu_put_pool(growths[count].pool);
    }
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log,
                                                size_t log_size) {
    __typeof__(&cuGraphInstantiate) real = JGPU_REAL(cuGraphInstantiate);
    return real == NULL ? CUDA_ERROR_NOT_INITIALIZED
                        : instantiated(real(exec, graph, error, log, log_size), graph, exec);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log,
                                                   size_t log_size) {
    __typeof__(&cuGraphInstantiate_v2) real = JGPU_REAL(cuGraphInstantiate_v2);
    return real == NULL ? CUDA_ERROR_NOT_INITIALIZED
                        : instantiated(real(exec, graph, error, log, log_size), graph, exec);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    __typeof__(&cuGraphInstantiateWithFlags) real = JGPU_REAL(cuGraphInstantiateWithFlags);
    return real == NULL ? CUDA_ERROR_NOT_INITIALIZED : instantiated(real(exec, graph, flags), graph, exec);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph,
                                                          CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
    __typeof__(&cuGraphInstantiateWithParams) real = JGPU_REAL(cuGraphInstantiateWithParams);
    return real == NULL ? CUDA_ERROR_NOT_INITIALIZED : instantiated(real(exec, graph, params), graph, exec);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph,
                                                               CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
    __typeof__(&cuGraphInstantiateWithParams_ptsz) real = JGPU_REAL(cuGraphInstantiateWithParams_ptsz);
    return real == NULL ? CUDA_ERROR_NOT_INITIALIZED : instantiated(real(exec, graph, params), graph, exec);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphExecDestroy(CUgraphExec exec) {
    __typeof__(&cuGraphExecDestroy) real = JGPU_REAL(cuGraphExecDestroy);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!atomic_load_explicit(&any, memory_order_relaxed))
        return real(exec);
    forget_exec(exec); /* first: the handle may be given to another at once */
    CUresult result = real(exec);
    jgpu_look_at_pools();
    return result;
}

JGPU_EXPORT CUresult CUDAAPI cuGraphUpload(CUgraphExec exec, CUstream stream) {
    return run(JGPU_REAL(cuGraphUpload), exec, stream);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream) {
    return run(JGPU_REAL(cuGraphUpload_ptsz), exec, stream);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    return run(JGPU_REAL(cuGraphLaunch), exec, stream);
}

JGPU_EXPORT CUresult CUDAAPI cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream) {
    return run(JGPU_REAL(cuGraphLaunch_ptsz), exec, stream);
}

JGPU_EXPORT CUresult CUDAAPI cuDeviceGraphMemTrim(CUdevice device) {
    __typeof__(&cuDeviceGraphMemTrim) real = JGPU_REAL(cuDeviceGraphMemTrim);
    if (real == NULL)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct jgpu_pool *pool = jgpu_inside == 0 && jgpu_is_counted() ? jgpu_graph_pool(device) : NULL;
    if (pool != NULL)
        jgpu_note_trim(pool);
    jgpu_put_pool(pool);
    CUresult result;
    JGPU_CALL(result, real(device));
    jgpu_look_at_pools();
    return result;
}
