/* Graphs of the stand-in, as far as they take memory: at a launch, from a pool per device, until the work is done. */
#include "standin.h"

enum { NODES = 64 };

struct CUgraphNode_st {
    CUgraphNodeType type;
    CUDA_MEM_ALLOC_NODE_PARAMS params;
    struct CUgraph_st *child;
};

struct CUgraph_st {
    struct CUgraphNode_st *nodes[NODES];
    size_t count;
};

/* Its memory stays mapped from its first launch until a trim that does not find it at work. As documented, what is
 * mapped for any graph counts as used, while several graphs may be served by the same memory in turn. */
struct CUgraphExec_st {
    struct CUgraphExec_st *next;
    uint64_t bytes[STANDIN_MOST_DEVICES];
    bool is_running;
    bool is_mapped;
};

static struct CUgraphExec_st *all_execs;
static uint64_t reserved[STANDIN_MOST_DEVICES], running[STANDIN_MOST_DEVICES];

API CUresult cuGraphCreate(CUgraph *graph, unsigned int flags) {
    *graph = calloc(1, sizeof **graph);
    return standin_trace("cuGraphCreate", 0, "%u", flags);
}

API CUresult cuGraphDestroy(CUgraph graph) {
    for (size_t number = 0; number < graph->count; number++)
        free(graph->nodes[number]);
    free(graph);
    return 0;
}

static CUgraphNode add(CUgraph graph, CUgraphNodeType type) {
    CUgraphNode node = calloc(1, sizeof *node);
    node->type = type;
    graph->nodes[graph->count++] = node;
    return node;
}

void standin_capture_allocation(CUgraph graph, CUdeviceptr *pointer, size_t size, int device) {
    CUgraphNode node = add(graph, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
    node->params.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    node->params.poolProps.location.id = device;
    node->params.bytesize = size;
    node->params.dptr = *pointer = standin_new_address(size);
}

API CUresult cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                    CUDA_MEM_ALLOC_NODE_PARAMS *params) {
    (void)dependencies, (void)count;
    pthread_mutex_lock(&standin_lock);
    standin_capture_allocation(graph, &params->dptr, params->bytesize, params->poolProps.location.id);
    *node = graph->nodes[graph->count - 1];
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuGraphAddMemAllocNode", 0, "%zu", params->bytesize);
}

API CUresult cuGraphAddMemFreeNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                   CUdeviceptr pointer) {
    (void)dependencies, (void)count;
    *node = add(graph, 11);
    return standin_trace("cuGraphAddMemFreeNode", 0, "%llx", pointer);
}

API CUresult cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *dependencies, size_t count,
                                      CUgraph child) {
    (void)dependencies, (void)count;
    *node = add(graph, CU_GRAPH_NODE_TYPE_GRAPH);
    (*node)->child = child;
    return 0;
}

API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count) {
    for (size_t number = 0; nodes != NULL && number < *count && number < graph->count; number++)
        nodes[number] = graph->nodes[number];
    *count = graph->count;
    return 0;
}

API CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type) {
    *type = node->type;
    return 0;
}

API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph) {
    *graph = node->child;
    return 0;
}

API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *params) {
    *params = node->params;
    return 0;
}

static void add_up(CUgraph graph, uint64_t bytes[STANDIN_MOST_DEVICES]) {
    for (size_t number = 0; number < graph->count; number++) {
        CUgraphNode node = graph->nodes[number];
        if (node->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC)
            bytes[node->params.poolProps.location.id] += node->params.bytesize;
        if (node->type == CU_GRAPH_NODE_TYPE_GRAPH)
            add_up(node->child, bytes);
    }
}

static CUresult instantiate(CUgraphExec *exec, CUgraph graph, const char *name) {
    *exec = calloc(1, sizeof **exec);
    add_up(graph, (*exec)->bytes);
    pthread_mutex_lock(&standin_lock);
    (*exec)->next = all_execs;
    all_execs = *exec;
    pthread_mutex_unlock(&standin_lock);
    return standin_trace(name, 0, "%p", (void *)graph);
}

API CUresult cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log, size_t log_size) {
    (void)error, (void)log, (void)log_size;
    return instantiate(exec, graph, "cuGraphInstantiate");
}

API CUresult cuGraphInstantiate_v2(CUgraphExec *exec, CUgraph graph, CUgraphNode *error, char *log, size_t log_size) {
    (void)error, (void)log, (void)log_size;
    return instantiate(exec, graph, "cuGraphInstantiate_v2");
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags) {
    (void)flags;
    return instantiate(exec, graph, "cuGraphInstantiateWithFlags");
}

API CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
    (void)params;
    return instantiate(exec, graph, "cuGraphInstantiateWithParams");
}

API CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *exec, CUgraph graph,
                                               CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
    (void)params;
    return instantiate(exec, graph, "cuGraphInstantiateWithParams_ptsz");
}

API CUresult cuGraphExecDestroy(CUgraphExec exec) {
    standin_trace("cuGraphExecDestroy", 0, "%p", (void *)exec);
    pthread_mutex_lock(&standin_lock);
    standin_finish_graphs();
    struct CUgraphExec_st **at = &all_execs;
    while (*at != exec)
        at = &(*at)->next;
    *at = exec->next;
    pthread_mutex_unlock(&standin_lock);
    free(exec);
    return 0;
}

static CUresult run(CUgraphExec exec, const char *name) {
    CUresult result = 0;
    pthread_mutex_lock(&standin_lock);
    /* Launches of the same one run one after the other. */
    for (int device = 0; device < standin_device_count() && result == 0 && !exec->is_running; device++) {
        uint64_t idle = reserved[device] - running[device], wanted = exec->bytes[device];
        if (wanted > idle) {
            if (standin_take(device, wanted - idle))
                reserved[device] += wanted - idle;
            else
                result = CUDA_ERROR_OUT_OF_MEMORY;
        }
        if (result == 0)
            running[device] += wanted;
    }
    if (result == 0)
        exec->is_running = exec->is_mapped = true;
    pthread_mutex_unlock(&standin_lock);
    return standin_trace(name, result, "%p", (void *)exec);
}

void standin_finish_graphs(void) {
    memset(running, 0, sizeof running);
    for (CUgraphExec exec = all_execs; exec != NULL; exec = exec->next)
        exec->is_running = false;
}

static uint64_t mapped(CUdevice device) {
    uint64_t sum = 0;
    for (CUgraphExec exec = all_execs; exec != NULL; exec = exec->next)
        sum += exec->is_mapped ? exec->bytes[device] : 0;
    return sum < reserved[device] ? sum : reserved[device];
}

API CUresult cuGraphUpload(CUgraphExec exec, CUstream stream) {
    (void)stream;
    return run(exec, "cuGraphUpload");
}

API CUresult cuGraphUpload_ptsz(CUgraphExec exec, CUstream stream) {
    (void)stream;
    return run(exec, "cuGraphUpload_ptsz");
}

API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    (void)stream;
    return run(exec, "cuGraphLaunch");
}

API CUresult cuGraphLaunch_ptsz(CUgraphExec exec, CUstream stream) {
    (void)stream;
    return run(exec, "cuGraphLaunch_ptsz");
}

API CUresult cuDeviceGraphMemTrim(CUdevice device) {
    pthread_mutex_lock(&standin_lock);
    standin_give(device, reserved[device] - running[device]);
    reserved[device] = running[device];
    for (CUgraphExec exec = all_execs; exec != NULL; exec = exec->next)
        exec->is_mapped = exec->is_running;
    pthread_mutex_unlock(&standin_lock);
    return standin_trace("cuDeviceGraphMemTrim", 0, "%d", device);
}

API CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute, void *value) {
    pthread_mutex_lock(&standin_lock);
    *(uint64_t *)value = attribute <= 1 ? mapped(device) : reserved[device];
    pthread_mutex_unlock(&standin_lock);
    return 0;
}

API CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
    (void)mode;
    if ((uintptr_t)stream <= 2)
        return CUDA_ERROR_INVALID_VALUE;
    stream->capturing = true;
    return cuGraphCreate(&stream->graph, 0);
}

API CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    stream->capturing = false;
    *graph = stream->graph;
    return 0;
}
