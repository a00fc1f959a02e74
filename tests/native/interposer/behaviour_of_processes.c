/* Reports, look-ups, processes and threads. */
#include "behaviour.h"

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

/* A slot that another process of the lease would have. */
static struct jgpu_account_slot *slot_of_another(unsigned number) {
    struct jgpu_account_header *header = (struct jgpu_account_header *)(void *)account.base;
    struct jgpu_account_slot *slot = jgpu_account_slot(&account, number);
    atomic_store(&slot->pid, 1);
    atomic_store(&header->slots_claimed, number + 1);
    return slot;
}

static void who_tries_past_the_cap_is_alone(void) {
    struct jgpu_account_slot *one = slot_of_another(0), *other = slot_of_another(1);
    EQUAL(jgpu_account_reserve(&account, one, 0, 900 * MIB), JGPU_GRANTED);
    jgpu_account_commit(&account, one, 0, 900 * MIB, 900 * MIB);
    EQUAL(jgpu_account_begin_trial(&account, one, 0, 192 * MIB), JGPU_ALONE);
    EQUAL(jgpu_account_begin_trial(&account, one, 0, 192 * MIB), JGPU_BUSY);
    EQUAL(jgpu_account_begin_trial(&account, other, 0, 192 * MIB), JGPU_SHARED);
    CHECK(jgpu_account_reserve(&account, one, 0, MIB) != JGPU_GRANTED);
    CHECK(jgpu_account_reserve(&account, other, 0, MIB) != JGPU_GRANTED);
    EQUAL(pending(), 192 * MIB);
    jgpu_account_cancel(&account, one, 0, 192 * MIB);
    EQUAL(jgpu_account_reserve(&account, one, 0, MIB), JGPU_GRANTED);
    EQUAL(jgpu_account_begin_trial(&account, one, 0, 192 * MIB), JGPU_BUSY);
    jgpu_account_cancel(&account, one, 0, MIB);
    EQUAL(jgpu_account_reserve(&account, other, 0, MIB), JGPU_GRANTED);
    EQUAL(jgpu_account_begin_trial(&account, one, 0, 192 * MIB), JGPU_SHARED);
    jgpu_account_cancel(&account, other, 0, MIB);
    set_cap(800 * MIB);
    EQUAL(jgpu_account_begin_trial(&account, one, 0, 192 * MIB), JGPU_SHARED);
    EQUAL(pending(), 0);
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

const struct behaviour behaviours_of_processes[] = {
    BEHAVIOUR(the_device_is_reported_as_large_as_the_cap),
    BEHAVIOUR(nvml_reports_the_same),
    BEHAVIOUR(a_forked_child_begins_with_nothing),
    BEHAVIOUR(the_dead_do_not_count_towards_the_peak),
    BEHAVIOUR(a_program_that_another_becomes_begins_with_nothing),
    BEHAVIOUR(threads_leave_nothing_behind),
    BEHAVIOUR(a_fork_amid_allocations_does_no_harm),
    BEHAVIOUR(pools_that_come_and_go_in_threads_are_asked_only_while_they_live),
    BEHAVIOUR(virtual_memory_of_threads_leaves_nothing_behind),
    BEHAVIOUR(who_tries_past_the_cap_is_alone),
    BEHAVIOUR(a_look_up_that_is_not_ours_is_the_callers_own),
    {NULL, NULL},
};
