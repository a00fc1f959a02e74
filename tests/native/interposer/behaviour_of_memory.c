/* Linear memory, arrays and contexts. */
#include "behaviour.h"

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

const struct behaviour behaviours_of_memory[] = {
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
    {NULL, NULL},
};
