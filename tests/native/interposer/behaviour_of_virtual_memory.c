/* Virtual memory. */
#include "behaviour.h"

static void a_mapping_outlives_the_handle(void) {
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    begin();
    OK(cuMemAddressReserve(&address, 512 * MIB, 0, 0, 0));
    OK(cuMemCreate(&handle, 256 * MIB, &block_prop, 0));
    OK(cuMemMap(address, 256 * MIB, 0, handle, 0));
    OK(cuMemRelease(handle));
    EQUAL(used(), 256 * MIB);
    OK(cuMemUnmap(address, 256 * MIB));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
    OK(cuMemAddressFree(address, 512 * MIB));
}

static void a_handle_outlives_the_mapping(void) {
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    begin();
    OK(cuMemAddressReserve(&address, 64 * MIB, 0, 0, 0));
    OK(cuMemCreate(&handle, 64 * MIB, &block_prop, 0));
    OK(cuMemMap(address, 64 * MIB, 0, handle, 0));
    OK(cuMemUnmap(address, 64 * MIB));
    EQUAL(used(), 64 * MIB);
    OK(cuMemMap(address, 64 * MIB, 0, handle, 0));
    OK(cuMemRelease(handle));
    OK(cuMemUnmap(address, 64 * MIB));
    EQUAL(used(), 0);
}

static void a_retained_handle_keeps_the_memory(void) {
    CUmemGenericAllocationHandle handle, retained, imported;
    CUdeviceptr address;
    uint64_t shared;
    begin();
    OK(cuMemAddressReserve(&address, 64 * MIB, 0, 0, 0));
    OK(cuMemCreate(&handle, 64 * MIB, &block_prop, 0));
    OK(cuMemMap(address, 64 * MIB, 0, handle, 0));
    OK(cuMemRetainAllocationHandle(&retained, (void *)(uintptr_t)(address + MIB)));
    OK(cuMemExportToShareableHandle(&shared, handle, 1, 0));
    OK(cuMemImportFromShareableHandle(&imported, &shared, 1));
    EQUAL(used(), 64 * MIB);
    OK(cuMemRelease(handle));
    OK(cuMemUnmap(address, 64 * MIB));
    EQUAL(used(), 64 * MIB);
    OK(cuMemRelease(retained));
    EQUAL(used(), 64 * MIB);
    OK(cuMemRelease(imported));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
    EQUAL(cuMemRelease(imported), CUDA_ERROR_INVALID_VALUE);
    EQUAL(used(), 0);
}

static void one_unmap_may_end_several_mappings(void) {
    enum { BLOCKS = 200 };
    CUmemGenericAllocationHandle handles[BLOCKS];
    CUdeviceptr address;
    begin();
    OK(cuMemAddressReserve(&address, BLOCKS * 2 * MIB, 0, 0, 0));
    for (int number = 0; number < BLOCKS; number++) {
        int place = number * 7 % BLOCKS; /* not in order */
        OK(cuMemCreate(&handles[number], 2 * MIB, &block_prop, 0));
        OK(cuMemMap(address + (CUdeviceptr)place * 2 * MIB, 2 * MIB, 0, handles[number], 0));
        OK(cuMemRelease(handles[number]));
    }
    EQUAL(used(), BLOCKS * 2 * MIB);
    CHECK(cuMemUnmap(address + MIB, 2 * MIB) != CUDA_SUCCESS);
    EQUAL(used(), BLOCKS * 2 * MIB);
    OK(cuMemUnmap(address, BLOCKS * MIB));
    EQUAL(used(), BLOCKS * MIB);
    OK(cuMemUnmap(address + BLOCKS * MIB, BLOCKS * MIB));
    EQUAL(used(), 0);
    EQUAL(standin_in_use(0), 0);
}

static void host_memory_and_other_devices_are_not_charged(void) {
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = {.type = 1, .location = {.type = 3 /* a NUMA node */}};
    begin();
    OK(cuMemCreate(&handle, 64 * GIB, &prop, 0));
    EQUAL(used(), 0);
    OK(cuMemRelease(handle));
    prop = (CUmemAllocationProp){.type = 1, .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 1}};
    OK(cuMemCreate(&handle, 2 * GIB, &prop, 0));
    EQUAL(used(), 0);
    OK(cuMemRelease(handle));
    CHECK(cuMemCreate(&handle, MIB + 1, &block_prop, 0) == CUDA_ERROR_INVALID_VALUE);
    EQUAL(used() + pending(), 0);
}

const struct behaviour behaviours_of_virtual_memory[] = {
    BEHAVIOUR(a_mapping_outlives_the_handle),
    BEHAVIOUR(a_handle_outlives_the_mapping),
    BEHAVIOUR(a_retained_handle_keeps_the_memory),
    BEHAVIOUR(one_unmap_may_end_several_mappings),
    BEHAVIOUR(host_memory_and_other_devices_are_not_charged),
    {NULL, NULL},
};
