/* The account file: opening it, claiming slots, and the reservations that two processes can never pass the cap with. */
#define _GNU_SOURCE
#include "account.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t sum(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

/* The whole of a small file as text; -1 where it cannot be read. */
static ssize_t read_text(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    size_t length = 0;
    while (length < size - 1) {
        ssize_t got = read(file, text + length, size - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    close(file);
    text[length] = '\0';
    return (ssize_t)length;
}

/* Whether `pid` runs, and since when in clock ticks since boot (0: unknown). A zombie holds no memory, so it has
 * ended. */
static bool is_running(uint64_t pid, uint64_t *start_time) {
    char path[48], text[1024];
    *start_time = 0;
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    if (read_text(path, text, sizeof text) <= 0)
        return kill((pid_t)pid, 0) == 0 || errno != ESRCH;
    char *at = strrchr(text, ')'); /* the command before it may hold anything */
    if (at == NULL || at[1] != ' ')
        return true;
    char state = at[2];
    unsigned long long threads = 0, started = 0;
    char *field = strtok_r(at + 2, " ", &at);
    for (int number = 3; field != NULL && number <= 22; number++, field = strtok_r(NULL, " ", &at)) {
        if (number == 20)
            threads = strtoull(field, NULL, 10);
        if (number == 22)
            started = strtoull(field, NULL, 10);
    }
    *start_time = started;
    /* A process whose first thread has left shows as a zombie while the others still compute. */
    return (state != 'Z' && state != 'X') || threads > 1;
}

static bool is_alive(uint64_t pid, uint64_t start_time) {
    uint64_t started;
    return is_running(pid, &started) && (started == 0 || started == start_time);
}

static bool is_this_boot(const char boot_id[40]) {
    char now[64];
    if (boot_id[0] == '\0' || read_text("/proc/sys/kernel/random/boot_id", now, sizeof now) <= 0)
        return true;
    now[strcspn(now, "\n")] = '\0';
    return strncmp(boot_id, now, 40) == 0;
}

static bool is_this_pid_namespace(uint64_t inode) {
    struct stat status;
    return inode == 0 || stat("/proc/self/ns/pid", &status) != 0 || (uint64_t)status.st_ino == inode;
}

static bool is_sound(const struct jgpu_account_header *header, const struct stat *status) {
    if (memcmp(header->magic, JGPU_ACCOUNT_MAGIC, 8) != 0 || header->version != JGPU_ACCOUNT_VERSION)
        return false;
    if (header->header_size != sizeof(struct jgpu_account_header) ||
        header->device_size != sizeof(struct jgpu_account_device) || header->device_count > JGPU_MOST_DEVICES)
        return false;
    uint64_t slot_least = sizeof(struct jgpu_account_slot) + 16u * header->device_count;
    if (header->slot_size % 8 != 0 || header->slot_size < slot_least || header->slot_count == 0)
        return false;
    uint64_t least = header->header_size + (uint64_t)header->device_size * header->device_count +
                     (uint64_t)header->slot_size * header->slot_count;
    return least <= header->file_size && header->file_size <= JGPU_LARGEST_ACCOUNT_BYTES &&
           (uint64_t)status->st_size >= header->file_size && is_this_boot(header->boot_id) &&
           is_this_pid_namespace(header->pid_namespace);
}

bool jgpu_account_open(struct jgpu_account *account, const char *path) {
    memset(account, 0, sizeof *account);
    if (strlen(path) >= sizeof account->path)
        return false;
    /* Not blocking, because the path may name anything, a FIFO or a terminal too. */
    int file = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (file < 0)
        return false;
    struct stat status;
    struct jgpu_account_header header;
    bool usable = fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == getuid() &&
                  pread(file, &header, sizeof header, 0) == (ssize_t)sizeof header && is_sound(&header, &status);
    /* Without its blocks, a full disk would end the process with SIGBUS at the first touch. */
    usable = usable && (fallocate(file, 0, 0, (off_t)header.file_size) == 0 || errno == EOPNOTSUPP || errno == ENOSYS);
    void *base = MAP_FAILED;
    if (usable)
        base = mmap(NULL, header.file_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (base == MAP_FAILED)
        return false;
    account->base = base;
    account->size = header.file_size;
    account->device_count = header.device_count;
    account->slot_count = header.slot_count;
    account->slot_size = header.slot_size;
    account->device_number = status.st_dev;
    account->inode = status.st_ino;
    strcpy(account->path, path);
    return true;
}

void jgpu_account_close(struct jgpu_account *account) {
    if (account->base != NULL)
        munmap(account->base, account->size);
    account->base = NULL;
}

static struct jgpu_account_header *header_of(const struct jgpu_account *account) {
    return (struct jgpu_account_header *)(void *)account->base;
}

struct jgpu_account_device *jgpu_account_device(const struct jgpu_account *account, unsigned device) {
    return (struct jgpu_account_device *)(void *)(account->base + sizeof(struct jgpu_account_header) +
                                                  (size_t)device * sizeof(struct jgpu_account_device));
}

struct jgpu_account_slot *jgpu_account_slot(const struct jgpu_account *account, unsigned slot) {
    return (struct jgpu_account_slot *)(void *)(account->base + sizeof(struct jgpu_account_header) +
                                                (size_t)account->device_count * sizeof(struct jgpu_account_device) +
                                                (size_t)slot * account->slot_size);
}

static _Atomic uint64_t *used_in(struct jgpu_account_slot *slot, unsigned device) { return &slot->amounts[device]; }

static _Atomic uint64_t *pending_in(const struct jgpu_account *account, struct jgpu_account_slot *slot,
                                    unsigned device) {
    return &slot->amounts[account->device_count + device];
}

/* The 16 bytes of "GPU-" or "MIG-" and 32 hexadecimal digits. */
static bool parse_uuid(const char *text, uint8_t uuid[16]) {
    if (strncmp(text, "GPU-", 4) != 0 && strncmp(text, "MIG-", 4) != 0)
        return false;
    text += 4;
    for (int byte = 0; byte < 16; byte++) {
        if (*text == '-')
            text++;
        unsigned value = 0;
        for (int digit = 0; digit < 2; digit++, text++) {
            if (*text >= '0' && *text <= '9')
                value = value * 16 + (unsigned)(*text - '0');
            else if (*text >= 'a' && *text <= 'f')
                value = value * 16 + (unsigned)(*text - 'a' + 10);
            else if (*text >= 'A' && *text <= 'F')
                value = value * 16 + (unsigned)(*text - 'A' + 10);
            else
                return false;
        }
        uuid[byte] = (uint8_t)value;
    }
    return *text == '\0';
}

static void device_text(const struct jgpu_account *account, unsigned device, char text[65]) {
    memcpy(text, jgpu_account_device(account, device)->uuid, 64);
    text[64] = '\0';
}

int jgpu_account_find_device(const struct jgpu_account *account, const uint8_t uuid[16]) {
    for (unsigned device = 0; device < account->device_count; device++) {
        char text[65];
        uint8_t listed[16];
        device_text(account, device, text);
        if (parse_uuid(text, listed) && memcmp(listed, uuid, 16) == 0)
            return (int)device;
    }
    return -1;
}

int jgpu_account_find_device_text(const struct jgpu_account *account, const char *uuid) {
    for (unsigned device = 0; device < account->device_count; device++) {
        char text[65];
        device_text(account, device, text);
        if (text[0] != '\0' && strcmp(text, uuid) == 0)
            return (int)device;
    }
    return -1;
}

/* The file, locked against other claims; -1 where it is gone or others hold it for longer than that. The descriptor
 * lives only as long as the lock: programs that close every descriptor would otherwise hand its number to a file of
 * theirs. */
static int lock(const struct jgpu_account *account, unsigned patience_ms) {
    int file = open(account->path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (file < 0)
        return -1;
    struct stat status;
    if (fstat(file, &status) != 0 || status.st_dev != account->device_number || status.st_ino != account->inode) {
        close(file);
        return -1;
    }
    for (uint64_t waited_us = 0; flock(file, LOCK_EX | LOCK_NB) != 0; waited_us += 100) {
        if ((errno != EWOULDBLOCK && errno != EINTR) || waited_us >= (uint64_t)patience_ms * 1000) {
            close(file);
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return file;
}

static void empty(const struct jgpu_account *account, struct jgpu_account_slot *slot) {
    for (unsigned number = 2 * account->device_count; number-- > 0;)
        atomic_store(&slot->amounts[number], 0);
}

static unsigned slots_claimed(const struct jgpu_account *account) {
    uint64_t claimed = atomic_load(&header_of(account)->slots_claimed);
    return claimed < account->slot_count ? (unsigned)claimed : account->slot_count;
}

static void reclaim_locked(const struct jgpu_account *account) {
    unsigned highest = 0;
    for (unsigned number = 0; number < account->slot_count; number++) {
        struct jgpu_account_slot *slot = jgpu_account_slot(account, number);
        uint64_t pid = atomic_load(&slot->pid);
        if (pid == 0)
            continue;
        if (is_alive(pid, atomic_load(&slot->start_time))) {
            highest = number + 1;
            continue;
        }
        empty(account, slot);
        atomic_store(&slot->busy_since, 0);
        atomic_store(&slot->busy, 0);
        atomic_store(&slot->start_time, 0);
        atomic_store(&slot->pid, 0);
    }
    if (slots_claimed(account) < highest)
        atomic_store(&header_of(account)->slots_claimed, highest);
}

/* Whether a process that has ended still holds something here. */
static bool has_dead(const struct jgpu_account *account) {
    for (unsigned number = slots_claimed(account); number-- > 0;) {
        struct jgpu_account_slot *slot = jgpu_account_slot(account, number);
        uint64_t pid = atomic_load(&slot->pid), held = 0;
        for (unsigned at = 0; at < 2 * account->device_count; at++)
            held |= atomic_load(&slot->amounts[at]);
        if (pid != 0 && held != 0 && pid != (uint64_t)getpid() && !is_alive(pid, atomic_load(&slot->start_time)))
            return true;
    }
    return false;
}

void jgpu_account_reclaim(const struct jgpu_account *account, unsigned patience_ms) {
    if (!has_dead(account))
        return; /* many may be refused at once, and would keep the lock from those that begin */
    int file = lock(account, patience_ms);
    if (file < 0)
        return;
    reclaim_locked(account);
    close(file);
}

struct jgpu_account_slot *jgpu_account_claim(const struct jgpu_account *account, unsigned patience_ms) {
    uint64_t pid = (uint64_t)getpid(), start_time;
    is_running(pid, &start_time);
    int file = lock(account, patience_ms);
    if (file < 0)
        return NULL;
    reclaim_locked(account);
    struct jgpu_account_slot *claimed = NULL;
    unsigned at = 0;
    for (unsigned number = 0; number < account->slot_count; number++) {
        struct jgpu_account_slot *slot = jgpu_account_slot(account, number);
        uint64_t holder = atomic_load(&slot->pid);
        if (holder == pid && atomic_load(&slot->start_time) == start_time) {
            /* What this process held before it became another program by exec is gone with that program. */
            empty(account, slot);
            claimed = slot;
            at = number;
            break;
        }
        if (holder == 0 && claimed == NULL) {
            claimed = slot;
            at = number;
        }
    }
    if (claimed != NULL) {
        if (slots_claimed(account) <= at)
            atomic_store(&header_of(account)->slots_claimed, at + 1);
        if (atomic_load(&claimed->pid) == 0) {
            empty(account, claimed);
            atomic_store(&claimed->start_time, start_time);
            atomic_store(&claimed->pid, pid);
        }
    }
    close(file);
    return claimed;
}

uint64_t jgpu_account_limit(const struct jgpu_account *account, unsigned device) {
    struct jgpu_account_device *record = jgpu_account_device(account, device);
    uint64_t cap = atomic_load(&record->cap), overhead = atomic_load(&record->overhead);
    if (cap == JGPU_NO_CAP)
        return JGPU_NO_CAP;
    return cap > overhead ? cap - overhead : 0;
}

uint64_t jgpu_account_used(const struct jgpu_account *account, unsigned device) {
    uint64_t used = 0;
    for (unsigned number = slots_claimed(account); number-- > 0;)
        used = sum(used, atomic_load(used_in(jgpu_account_slot(account, number), device)));
    return used;
}

enum jgpu_grant jgpu_account_reserve(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                                     uint64_t bytes) {
    uint64_t limit = jgpu_account_limit(account, device);
    if (bytes > limit)
        return JGPU_REFUSED;
    atomic_fetch_add(pending_in(account, own, device), bytes);
    if (limit == JGPU_NO_CAP)
        return JGPU_GRANTED;
    uint64_t used = 0, pending = 0;
    for (unsigned number = slots_claimed(account); number-- > 0;) {
        struct jgpu_account_slot *slot = jgpu_account_slot(account, number);
        /* Pending first: a commit adds to used before it takes from pending, so this order sees the bytes at least
         * once, and the other might miss them. */
        pending = sum(pending, atomic_load(pending_in(account, slot, device)));
        used = sum(used, atomic_load(used_in(slot, device)));
    }
    if (sum(used, pending) <= limit)
        return JGPU_GRANTED;
    jgpu_account_cancel(account, own, device, bytes);
    return sum(used, bytes) <= limit ? JGPU_CONTENDED : JGPU_REFUSED;
}

enum jgpu_trial jgpu_account_begin_trial(const struct jgpu_account *account, struct jgpu_account_slot *own,
                                         unsigned device, uint64_t bytes) {
    uint64_t limit = jgpu_account_limit(account, device);
    atomic_fetch_add(pending_in(account, own, device), bytes);
    enum jgpu_trial found = JGPU_ALONE;
    for (unsigned number = slots_claimed(account); number-- > 0 && found != JGPU_SHARED;) {
        struct jgpu_account_slot *slot = jgpu_account_slot(account, number);
        uint64_t pending = atomic_load(pending_in(account, slot, device));
        uint64_t used = atomic_load(used_in(slot, device));
        if (slot != own ? (pending | used) != 0 : used > limit)
            found = JGPU_SHARED;
        else if (slot == own && pending != bytes)
            found = JGPU_BUSY;
    }
    if (found != JGPU_ALONE)
        jgpu_account_cancel(account, own, device, bytes);
    return found;
}

/* Never below zero, so that a slot that was emptied under a wrong belief cannot lock its lease out for good. */
static void subtract(_Atomic uint64_t *amount, uint64_t bytes) {
    uint64_t before = atomic_load(amount);
    while (!atomic_compare_exchange_weak(amount, &before, before > bytes ? before - bytes : 0)) {
    }
}

void jgpu_account_cancel(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                         uint64_t bytes) {
    subtract(pending_in(account, own, device), bytes);
}

void jgpu_account_discharge(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                            uint64_t bytes) {
    (void)account;
    subtract(used_in(own, device), bytes);
}

/* What the living hold. Those of the dead do not count towards the peak, although their slots may still be taken. */
static uint64_t living_used(const struct jgpu_account *account, const struct jgpu_account_slot *own, unsigned device) {
    uint64_t used = 0;
    for (unsigned number = slots_claimed(account); number-- > 0;) {
        struct jgpu_account_slot *slot = jgpu_account_slot(account, number);
        uint64_t held = atomic_load(used_in(slot, device));
        if (held != 0 && (slot == own || is_alive(atomic_load(&slot->pid), atomic_load(&slot->start_time))))
            used = sum(used, held);
    }
    return used;
}

void jgpu_account_commit(const struct jgpu_account *account, struct jgpu_account_slot *own, unsigned device,
                         uint64_t reserved, uint64_t actual) {
    uint64_t own_used = atomic_fetch_add(used_in(own, device), actual) + actual;
    subtract(pending_in(account, own, device), reserved);
    /* All look again after their commit: the last of those that commit together sees the sum of all. */
    uint64_t used = jgpu_account_used(account, device);
    _Atomic uint64_t *peak = &jgpu_account_device(account, device)->peak;
    uint64_t before = atomic_load(peak);
    /* More than may be held is a pool that grew past the cap and is being cut back. */
    if (used <= before || used > jgpu_account_limit(account, device))
        return;
    if (used != own_used)
        used = living_used(account, own, device);
    while (used > before && !atomic_compare_exchange_weak(peak, &before, used)) {
    }
}

void jgpu_account_note_refusal(const struct jgpu_account *account, unsigned device, uint64_t bytes) {
    struct jgpu_account_device *record = jgpu_account_device(account, device);
    atomic_store(&record->refused_size, bytes);
    atomic_store(&record->refused_used, jgpu_account_used(account, device));
    atomic_store(&record->refused_pid, (uint64_t)getpid());
    atomic_fetch_add(&record->refusals, 1); /* last, so that who sees the count go up finds the rest written */
}
