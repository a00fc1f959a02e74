/* Throws damaged account files at the code that reads them: `fuzz DIRECTORY ROUNDS SEED`.
 *
 * A file is made whole, then some of its bytes are changed or cut off, then everything that a process does with an
 * account is done with it; in some rounds another thread keeps changing the mapped bytes meanwhile. Nothing may crash,
 * hang, or write outside the mapping (the sanitisers see to that). Prints how many files were taken for accounts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../../jupyter_gpu/limits/interposer/account.h"

enum { DEVICES = 3, SLOTS = 6, SLOT_SIZE = 128 };
enum { SIZE = 256 + 256 * DEVICES + SLOT_SIZE * SLOTS };

static uint64_t state;
static uint32_t dice(uint32_t sides) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % sides;
}

static uint64_t interesting(void) {
    static const uint64_t values[] = {0,          1,          2,          63,         64,         65,
                                      255,        256,        257,        4096,       0x7fffffff, 0x80000000,
                                      0xffffffff, 1ull << 40, 1ull << 63, UINT64_MAX, UINT64_MAX - 1};
    return dice(3) == 0 ? ((uint64_t)dice(UINT32_MAX) << 32 | dice(UINT32_MAX))
                        : values[dice(sizeof values / sizeof *values)];
}

static void make(uint8_t *bytes) {
    struct jgpu_account_header header = {.version = 1,
                                         .header_size = 256,
                                         .device_count = DEVICES,
                                         .slot_count = SLOTS,
                                         .device_size = 256,
                                         .slot_size = SLOT_SIZE,
                                         .file_size = SIZE};
    memset(bytes, 0, SIZE);
    memcpy(header.magic, JGPU_ACCOUNT_MAGIC, 8);
    memcpy(bytes, &header, sizeof header);
    for (int device = 0; device < DEVICES; device++) {
        uint64_t cap = 1 << 30;
        snprintf((char *)bytes + 256 + 256 * device, 64, "GPU-5d5d5d5d-5d5d-5d5d-5d5d-5d5d5d5d5d%02x",
                 (unsigned)device);
        memcpy(bytes + 256 + 256 * device + 64, &cap, 8);
    }
}

static void change(uint8_t *bytes, size_t size, unsigned times) {
    while (times-- > 0) {
        uint64_t value = interesting();
        size_t width = (size_t)1 << dice(4), at = dice((uint32_t)(size - width + 1));
        if (dice(2) == 0)
            at = dice(24) * 8; /* in the header and the first device, where it matters most */
        if (at + width <= size)
            memcpy(bytes + at, &value, width);
    }
}

static struct jgpu_account account;
static _Atomic bool stop;

static __attribute__((no_sanitize("thread"))) void *disturb(void *argument) {
    (void)argument;
    while (!stop) {
        size_t at = dice((uint32_t)account.size / 8) * 8;
        atomic_store((_Atomic uint64_t *)(void *)(account.base + at), interesting());
    }
    return NULL;
}

static void use(void) {
    uint8_t uuid[16];
    memset(uuid, 0x5d, sizeof uuid);
    uuid[15] = 2;
    int device = jgpu_account_find_device(&account, uuid);
    jgpu_account_find_device_text(&account, "GPU-5d5d5d5d-5d5d-5d5d-5d5d-5d5d5d5d5d01");
    struct jgpu_account_slot *own = jgpu_account_claim(&account, 0);
    if (device < 0)
        device = 0;
    for (int round = 0; own != NULL && (unsigned)device < account.device_count && round < 4; round++) {
        uint64_t bytes = interesting();
        if (jgpu_account_reserve(&account, own, (unsigned)device, bytes) == JGPU_GRANTED) {
            if (round % 2 == 0)
                jgpu_account_commit(&account, own, (unsigned)device, bytes, bytes / 2);
            else
                jgpu_account_cancel(&account, own, (unsigned)device, bytes);
        } else {
            jgpu_account_note_refusal(&account, (unsigned)device, bytes);
        }
        jgpu_account_discharge(&account, own, (unsigned)device, interesting());
    }
    if ((unsigned)device < account.device_count) {
        jgpu_account_used(&account, (unsigned)device);
        jgpu_account_limit(&account, (unsigned)device);
    }
    jgpu_account_reclaim(&account, 0);
}

int main(int argc, char **argv) {
    if (argc < 4)
        return 2;
    char path[512];
    snprintf(path, sizeof path, "%s/account", argv[1]);
    int rounds = atoi(argv[2]), taken = 0;
    state = strtoull(argv[3], NULL, 10) * 2654435761u + 1;
    for (int round = 0; round < rounds; round++) {
        static uint8_t bytes[SIZE];
        size_t size = SIZE;
        make(bytes);
        if (round > 0)
            change(bytes, SIZE, dice(6));
        if (round > 0 && dice(8) == 0)
            size = dice(SIZE);
        int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (file < 0 || write(file, bytes, size) != (ssize_t)size)
            return 1;
        close(file);
        if (jgpu_account_open(&account, path)) {
            pthread_t thread;
            bool is_disturbed = dice(16) == 0;
            taken++;
            stop = false;
            if (is_disturbed && pthread_create(&thread, NULL, disturb, NULL) != 0)
                return 1;
            use();
            stop = true;
            if (is_disturbed)
                pthread_join(thread, NULL);
            jgpu_account_close(&account);
        } else if (round == 0) {
            return 1; /* the first is whole */
        }
        unlink(path);
    }
    printf("%d\n", taken);
    return 0;
}
