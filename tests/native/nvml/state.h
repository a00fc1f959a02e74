/* What the stand-in shows: the contents of the state file, read again whenever the file is replaced.
 *
 * The format is one setting per line, `word value…`; the values of a line belong to the device that was named last.
 * tests/native/nvml_stand_in.py writes it and lists the words.
 */
#ifndef NVML_STATE_H
#define NVML_STATE_H

#include <stdbool.h>
#include <stddef.h>

#define MOST_GPUS 128
#define MOST_INSTANCES 16
#define TEXT 96

enum process_kind { COMPUTE, GRAPHICS, MPS };

struct process {
    unsigned int pid;
    enum process_kind kind;
    unsigned long long memory;
    bool sampled;
    unsigned int utilization;
    unsigned long long age_us;
};

/* What one function, or with the name `*` every function, does instead of answering at once. */
struct behaviour {
    char function[TEXT];
    int result;
    long latency_us;
};

struct behaviours {
    struct behaviour *items;
    size_t count;
};

enum loss { PRESENT, LOST, LOST_UNTIL_INIT };

struct device {
    char uuid[TEXT], name[TEXT], pci[TEXT];
    unsigned int capability_major, capability_minor;
    unsigned long long memory_total, memory_reserved, memory_used;
    unsigned int utilization, memory_utilization, temperature, power_mw, power_limit_mw;
    bool mig_capable, mig_enabled;
    enum loss loss;
    unsigned int slot, gpu_instance, compute_instance, gpu_slices, compute_slices;
    struct process *processes;
    size_t process_count;
    struct behaviours behaviours;
    struct device *instances;
    size_t instance_count;
};

struct state {
    char driver[TEXT], library[TEXT];
    int cuda;
    int broken;
    long latency_us;
    bool spin;
    int log;
    struct behaviours behaviours;
    struct device *gpus;
    size_t gpu_count;
};

/* The state as the file has it now; the file is named by the environment variable NVML_STAND_IN_STATE, and without
 * one there is no GPU. Not safe for several threads: the caller holds the lock. Valid until the next call. */
const struct state *current_state(void);

/* The code that a function is set to fail with, or 0. */
int failure_of(const struct behaviours *behaviours, const char *function);

/* How long a function is set to take, in microseconds, or -1. */
long latency_of(const struct behaviours *behaviours, const char *function);

#endif
