/* The process's part in its lease. */
#define _GNU_SOURCE
#include "state.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "forget.h"
#include "pools.h"

enum {
    PATIENCE_MS = 5000,        /* for the account's lock, the first time */
    LATER_PATIENCE_MS = 50,    /* and afterwards, when allocations already run */
    CONTENTION_NS = 20000000,  /* for others that ask at the same moment */
    TRIAL_NS = 500000000,      /* for a trial of this process, which may have to wait for the device */
    KNOWN_DEVICES = 64,
};

_Thread_local int jgpu_inside __attribute__((tls_model("initial-exec")));

static pthread_mutex_t attaching = PTHREAD_MUTEX_INITIALIZER;
enum { UNTRIED, UNUSABLE, USABLE };
static _Atomic int attached = UNTRIED;
static _Atomic bool knows_of_forks;
static struct jgpu_account account; /* written once, before attached becomes USABLE */
static struct jgpu_account_slot *_Atomic own_slot;
static _Atomic unsigned failed_claims;
static _Atomic int known_devices[KNOWN_DEVICES]; /* 0: not looked up, -1: not in the account, n: account device n - 1 */
static _Atomic bool trying[JGPU_MOST_DEVICES]; /* a thread of this process has begun a trial */

/* A child has none of its parent's device memory, and none of the threads that may hold locks. */
static void start_anew_in_child(void) {
    pthread_mutex_init(&attaching, NULL);
    atomic_store(&own_slot, NULL);
    atomic_store(&failed_claims, 0);
    jgpu_inside = 0;
    for (unsigned device = 0; device < JGPU_MOST_DEVICES; device++)
        atomic_store(&trying[device], false);
    jgpu_forget_charges();
    jgpu_forget_pools();
    jgpu_forget_virtual_memory();
    jgpu_forget_graphs();
    jgpu_forget_contexts();
}

bool jgpu_has_account(void) {
    int state = atomic_load_explicit(&attached, memory_order_acquire);
    if (state != UNTRIED)
        return state == USABLE;
    const char *path = getenv("JUPYTER_GPU_ACCOUNT");
    if (path == NULL || path[0] != '/') {
        atomic_store(&attached, UNUSABLE);
        return false;
    }
    /* Before any lock is taken, as another thread may fork while it is held. Several threads may each do so; waiting
     * for one of them could last for ever in a child. Handlers that run twice do no harm. */
    if (!atomic_load(&knows_of_forks)) {
        if (pthread_atfork(NULL, NULL, start_anew_in_child) != 0)
            return false;
        atomic_store(&knows_of_forks, true);
    }
    pthread_mutex_lock(&attaching);
    if (atomic_load(&attached) == UNTRIED) {
        bool is_usable = jgpu_account_open(&account, path);
        atomic_store_explicit(&attached, is_usable ? USABLE : UNUSABLE, memory_order_release);
    }
    pthread_mutex_unlock(&attaching);
    return atomic_load(&attached) == USABLE;
}

bool jgpu_is_counted(void) {
    if (atomic_load_explicit(&own_slot, memory_order_acquire) != NULL)
        return true;
    if (!jgpu_has_account())
        return false;
    pthread_mutex_lock(&attaching);
    if (atomic_load(&own_slot) == NULL) {
        /* Where there is no slot to be had, trying at every allocation would slow the program for nothing. */
        unsigned failed = atomic_load(&failed_claims);
        if (failed < 8 || failed % 1024 == 0) {
            unsigned patience_ms = failed == 0 ? PATIENCE_MS : LATER_PATIENCE_MS;
            atomic_store_explicit(&own_slot, jgpu_account_claim(&account, patience_ms), memory_order_release);
        }
        if (atomic_load(&own_slot) == NULL)
            atomic_fetch_add(&failed_claims, 1);
    }
    pthread_mutex_unlock(&attaching);
    return atomic_load(&own_slot) != NULL;
}

static struct jgpu_account_slot *slot(void) { return atomic_load_explicit(&own_slot, memory_order_acquire); }

/* An account names a device by a UUID; where it has another kind of name (of older MIG), the order must do. */
static int look_up_device(CUdevice device) {
    CUuuid uuid;
    __typeof__(&cuDeviceGetUuid_v2) ask = JGPU_REAL(cuDeviceGetUuid_v2);
    if (ask == NULL)
        ask = JGPU_REAL(cuDeviceGetUuid);
    if (ask == NULL || ask(&uuid, device) != CUDA_SUCCESS)
        return -1;
    int found = jgpu_account_find_device(&account, (const uint8_t *)uuid.bytes);
    if (found < 0 && device >= 0 && (unsigned)device < account.device_count) {
        const char *name = jgpu_account_device(&account, (unsigned)device)->uuid;
        if (memcmp(name, "MIG-GPU-", 8) == 0)
            return device;
    }
    return found;
}

int jgpu_device(CUdevice device) {
    if (!jgpu_is_counted())
        return -1;
    if (device < 0 || device >= KNOWN_DEVICES)
        return -1;
    int known = atomic_load_explicit(&known_devices[device], memory_order_relaxed);
    if (known == 0) {
        int found = look_up_device(device);
        known = found < 0 ? -1 : found + 1;
        atomic_store_explicit(&known_devices[device], known, memory_order_relaxed);
    }
    return known < 0 ? -1 : known - 1;
}

int jgpu_device_named(const char *uuid) {
    return jgpu_is_counted() ? jgpu_account_find_device_text(&account, uuid) : -1;
}

bool jgpu_current_place(struct jgpu_place *place) {
    if (jgpu_inside != 0 || !jgpu_is_counted())
        return false;
    __typeof__(&cuCtxGetCurrent) get_context = JGPU_REAL(cuCtxGetCurrent);
    __typeof__(&cuCtxGetDevice) get_device = JGPU_REAL(cuCtxGetDevice);
    CUdevice device;
    if (get_context == NULL || get_device == NULL || get_context(&place->context) != CUDA_SUCCESS ||
        place->context == NULL || get_device(&device) != CUDA_SUCCESS)
        return false;
    place->device = jgpu_device(device);
    return place->device >= 0;
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool jgpu_reserve_if_free(int device, uint64_t bytes) {
    return jgpu_account_reserve(&account, slot(), (unsigned)device, bytes) == JGPU_GRANTED;
}

/* Ask, and again while only others that ask at the same moment are in the way. */
static bool reserve_in_turn(int device, uint64_t bytes) {
    int64_t since = now_ns();
    uint64_t dice = (uint64_t)since;
    for (long pause_ns = 2000;; pause_ns = pause_ns < 250000 ? pause_ns * 2 : 500000) {
        /* Seen before asking: a trial that ends in between may have been what was in the way. */
        bool during_trial = atomic_load(&trying[device]);
        enum jgpu_grant grant = jgpu_account_reserve(&account, slot(), (unsigned)device, bytes);
        if (grant == JGPU_GRANTED)
            return true;
        int64_t patience_ns = during_trial ? TRIAL_NS : grant == JGPU_CONTENDED ? CONTENTION_NS : 0;
        if (now_ns() - since >= patience_ns)
            return false;
        /* Of different lengths, or those that meet once would meet each time. */
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        nanosleep(&(struct timespec){.tv_nsec = pause_ns + (long)(dice >> 33) % pause_ns}, NULL);
    }
}

bool jgpu_reserve(int device, uint64_t bytes) {
    if (bytes <= jgpu_account_limit(&account, (unsigned)device)) {
        if (jgpu_reserve_if_free(device, bytes) || reserve_in_turn(device, bytes))
            return true;
        jgpu_give_back_idle_pools();
        jgpu_account_reclaim(&account, LATER_PATIENCE_MS);
        if (reserve_in_turn(device, bytes))
            return true;
    }
    jgpu_note_refusal(device, bytes);
    return false;
}

void jgpu_cancel(int device, uint64_t bytes) { jgpu_account_cancel(&account, slot(), (unsigned)device, bytes); }

enum jgpu_trial jgpu_begin_trial(int device, uint64_t bytes) {
    if (atomic_exchange(&trying[device], true))
        return JGPU_BUSY;
    enum jgpu_trial found = jgpu_account_begin_trial(&account, slot(), (unsigned)device, bytes);
    if (found != JGPU_ALONE)
        atomic_store(&trying[device], false);
    return found;
}

void jgpu_end_trial(int device, uint64_t bytes) {
    jgpu_cancel(device, bytes);
    atomic_store(&trying[device], false);
}

void jgpu_commit(int device, uint64_t reserved, uint64_t actual) {
    jgpu_account_commit(&account, slot(), (unsigned)device, reserved, actual);
}

void jgpu_charge(int device, uint64_t bytes) { jgpu_commit(device, 0, bytes); }

void jgpu_discharge(int device, uint64_t bytes) { jgpu_account_discharge(&account, slot(), (unsigned)device, bytes); }

void jgpu_note_refusal(int device, uint64_t bytes) { jgpu_account_note_refusal(&account, (unsigned)device, bytes); }

bool jgpu_is_over(int device) {
    return jgpu_account_used(&account, (unsigned)device) > jgpu_account_limit(&account, (unsigned)device);
}

void jgpu_cap(int device, uint64_t *cap, uint64_t *left) {
    *cap = atomic_load(&jgpu_account_device(&account, (unsigned)device)->cap);
    uint64_t limit = jgpu_account_limit(&account, (unsigned)device);
    uint64_t used = jgpu_account_used(&account, (unsigned)device);
    *left = limit == JGPU_NO_CAP ? JGPU_NO_CAP : limit > used ? limit - used : 0;
}
