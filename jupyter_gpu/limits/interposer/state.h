/* What this process knows of its lease: the mapped account, its own slot there, and which device is which. */
#ifndef JUPYTER_GPU_STATE_H
#define JUPYTER_GPU_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "account.h"
#include "driver.h"

/* Whether this process has a lease whose account can be used. Reads JUPYTER_GPU_ACCOUNT the first time. */
bool jgpu_has_account(void);
/* The same, and this process has its slot. */
bool jgpu_is_counted(void);

/* Where an allocation would be charged. */
struct jgpu_place {
    int device;        /* in the account */
    CUcontext context; /* that it dies with; NULL: none */
};
/* The account's device for the driver's; -1 where the lease has no such device or nothing is counted. */
int jgpu_device(CUdevice device);
/* The place of an allocation in the current context; false: let it pass uncounted. */
bool jgpu_current_place(struct jgpu_place *place);

/* Ask for bytes on a device of the account, with all that can be done before refusing: idle memory of this process's
 * pools is given back, the dead are reclaimed, others that ask at this moment are waited for. A refusal is noted. */
bool jgpu_reserve(int device, uint64_t bytes);
/* The same without any of that, and without noting. */
bool jgpu_reserve_if_free(int device, uint64_t bytes);
void jgpu_cancel(int device, uint64_t bytes);
/* Ask to be the only one in the lease that asks for memory of a device, even where the bytes pass the cap; where that is
 * so, until jgpu_end_trial. */
enum jgpu_trial jgpu_begin_trial(int device, uint64_t bytes);
void jgpu_end_trial(int device, uint64_t bytes);
void jgpu_commit(int device, uint64_t reserved, uint64_t actual);
void jgpu_charge(int device, uint64_t bytes);
void jgpu_discharge(int device, uint64_t bytes);
void jgpu_note_refusal(int device, uint64_t bytes);
/* Whether the lease holds more than it may. */
bool jgpu_is_over(int device);

/* The cap, JGPU_NO_CAP for none, and what is left of it, in bytes, of a device of the account. */
void jgpu_cap(int device, uint64_t *cap, uint64_t *left);
int jgpu_device_named(const char *uuid);

/* Set while a real function runs, so that what a driver calls of its own accord is not counted twice. */
extern _Thread_local int jgpu_inside __attribute__((tls_model("initial-exec")));
#define JGPU_CALL(result, call)                                                                                        \
    do {                                                                                                               \
        jgpu_inside++;                                                                                                 \
        (result) = (call);                                                                                             \
        jgpu_inside--;                                                                                                 \
    } while (0)

#endif
