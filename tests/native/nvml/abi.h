/* The part of NVML's binary interface that the stand-in answers: types, codes and layouts.
 *
 * Figures are those of NVIDIA's NVML reference and of nvidia-ml-py; tests/devices/test_nvml_stand_in.py compares
 * every layout with the latter's ctypes structures.
 */
#ifndef NVML_ABI_H
#define NVML_ABI_H

#include <stddef.h>

/* The driver series whose set of symbols and layouts is built: 440 (before MIG), 470 (before the third version of the
 * process lists and memory with reserved bytes), 535 (the series whose first releases had longer process entries),
 * or a current one. */
#ifndef NVML_SERIES
#define NVML_SERIES 570
#endif

#define EXPORT __attribute__((visibility("default")))

typedef int nvmlReturn_t;
typedef struct opaque_device *nvmlDevice_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
};

#define NOT_AVAILABLE (~0ULL)
#define NO_INSTANCE 0xFFFFFFFFu

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlBAR1Memory_t;

typedef struct {
    unsigned long long protected_kib, unprotected_kib;
} nvmlConfComputeMemSizeInfo_t;

typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
    char bus_id_legacy[16];
    unsigned int domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} nvmlPciInfo_t;

typedef struct {
    unsigned int version, sensor;
    int temperature;
} nvmlTemperature_t;

typedef struct {
    unsigned int multiprocessors, copy_engines, decoders, encoders, jpeg, optical_flow;
    unsigned int gpu_instance_slices, compute_instance_slices;
    unsigned long long memory_mib;
} nvmlDeviceAttributes_t;

typedef struct {
    unsigned int pid;
    unsigned long long used_memory;
} nvmlProcessInfo_v1_t;

typedef struct {
    unsigned int pid;
    unsigned long long used_memory;
    unsigned int gpu_instance, compute_instance;
} nvmlProcessInfo_v2_t;

/* What the first 535 drivers wrote for nvmlDeviceGet*RunningProcesses_v3, and what the detail list holds. */
typedef struct {
    unsigned int pid;
    unsigned long long used_memory;
    unsigned int gpu_instance, compute_instance;
    unsigned long long protected_memory;
} nvmlProcessDetail_t;

typedef struct {
    unsigned int version, mode, count;
    nvmlProcessDetail_t *entries;
} nvmlProcessDetailList_t;

typedef struct {
    unsigned int pid;
    unsigned long long time_us;
    unsigned int sm, memory, encoder, decoder;
} nvmlProcessUtilizationSample_t;

typedef struct {
    unsigned long long time_us;
    unsigned int pid, sm, memory, encoder, decoder, jpeg, optical_flow;
} nvmlProcessUtilizationInfo_t;

typedef struct {
    unsigned int version, count;
    unsigned long long last_seen_us;
    nvmlProcessUtilizationInfo_t *entries;
} nvmlProcessesUtilizationInfo_t;

typedef struct {
    unsigned int field, scope;
    long long time_us, latency_us;
    unsigned int value_type;
    nvmlReturn_t result;
    unsigned long long value;
} nvmlFieldValue_t;

typedef struct {
    unsigned int version, type;
    char text[41];
} nvmlUUID_t;

/* NVML's versions are the size of the structure with the version's number in the highest byte. */
#define STRUCT_VERSION(type, number) ((unsigned int)(sizeof(type) | ((unsigned int)(number) << 24)))

#endif
