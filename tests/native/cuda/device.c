/* The devices' memory, shared by processes where a file is given, and what a test may ask. */
#include "standin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

pthread_mutex_t standin_lock = PTHREAD_MUTEX_INITIALIZER;
bool standin_initialised;

enum { PROCESSES = 256, NAMES = 512 };

struct process {
    uint64_t pid;
    uint64_t start_time;
    uint64_t used[STANDIN_MOST_DEVICES];
};

static struct shared {
    uint32_t ready;
    pthread_mutex_t lock;
    uint64_t most[STANDIN_MOST_DEVICES]; /* that the living had in use at once */
    uint64_t violations[VIOLATIONS];
    struct process processes[PROCESSES];
} own, *shared;

static uint64_t sizes[STANDIN_MOST_DEVICES], limit;
static int device_count;
static FILE *trace;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct {
    char name[64];
    unsigned long calls;
} calls[NAMES];
static pthread_mutex_t calls_lock = PTHREAD_MUTEX_INITIALIZER;

static void make_lock(struct shared *there) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&there->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

/* The file is made whole under its lock before any process maps it. */
static struct shared *map_shared(const char *path) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || lockf(file, F_LOCK, 0) != 0)
        abort();
    bool is_new = lseek(file, 0, SEEK_END) == 0;
    if (ftruncate(file, sizeof(struct shared)) != 0)
        abort();
    struct shared *there = mmap(NULL, sizeof *there, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (there == MAP_FAILED)
        abort();
    if (is_new) {
        make_lock(there);
        there->ready = 1;
    }
    close(file);
    return there;
}

static void lock_shared(void) {
    if (pthread_mutex_lock(&shared->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&shared->lock);
}

/* A child gets whole books, and locks that nobody holds. */
static void before_fork(void) {
    pthread_mutex_lock(&standin_lock);
    pthread_mutex_lock(&calls_lock);
    lock_shared();
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&shared->lock);
    pthread_mutex_unlock(&calls_lock);
    pthread_mutex_unlock(&standin_lock);
}

static void after_fork_in_child(void) {
    if (shared == &own)
        make_lock(&own);
    pthread_mutex_init(&calls_lock, NULL);
    pthread_mutex_init(&standin_lock, NULL);
}

static void prepare(void) {
    const char *text = getenv("STANDIN_CUDA_DEVICES");
    if (text == NULL || *text == '\0')
        text = "8589934592";
    char *end = NULL;
    for (; device_count < STANDIN_MOST_DEVICES && *text != '\0'; text = *end == ',' ? end + 1 : end)
        sizes[device_count++] = strtoull(text, &end, 10);
    text = getenv("STANDIN_CUDA_LIMIT");
    limit = text == NULL ? UINT64_MAX : strtoull(text, NULL, 10);
    text = getenv("STANDIN_CUDA_TRACE");
    if (text != NULL)
        trace = fopen(text, "ae");
    text = getenv("STANDIN_CUDA_SHARED");
    shared = text == NULL ? &own : map_shared(text);
    if (shared == &own)
        make_lock(&own);
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* 0 where it has ended. */
static uint64_t start_time_of(uint64_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%llu/stat", (unsigned long long)pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    text[length < 0 ? 0 : length] = '\0';
    char *at = strrchr(text, ')');
    if (at == NULL || at[2] == 'Z' || at[2] == 'X')
        return 0;
    for (int field = 2; field < 22 && at != NULL; field++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static struct process *find_own(void) {
    static __thread struct process *known;
    uint64_t pid = (uint64_t)getpid();
    if (known != NULL && known->pid == pid)
        return known;
    uint64_t start_time = start_time_of(pid);
    while (start_time == 0)
        pause(); /* killed, and this thread is the last to hear of it: it must not begin anew */
    for (int number = 0; number < PROCESSES; number++)
        if (shared->processes[number].pid == pid && shared->processes[number].start_time == start_time)
            return known = &shared->processes[number];
    for (int number = 0; number < PROCESSES; number++) {
        struct process *process = &shared->processes[number];
        if (process->pid == 0 || start_time_of(process->pid) != process->start_time) {
            memset(process, 0, sizeof *process);
            process->pid = pid;
            process->start_time = start_time;
            return known = process;
        }
    }
    abort();
}

static uint64_t in_use(int device, bool only_living) {
    uint64_t sum = 0;
    for (int number = 0; number < PROCESSES; number++) {
        struct process *process = &shared->processes[number];
        if (process->pid == 0 || process->used[device] == 0)
            continue;
        if (only_living && start_time_of(process->pid) != process->start_time) {
            memset(process, 0, sizeof *process);
            continue;
        }
        sum += process->used[device];
    }
    return sum;
}

int standin_device_count(void) {
    pthread_once(&once, prepare);
    return device_count;
}

bool standin_is_device(int device) { return device >= 0 && device < standin_device_count(); }

uint64_t standin_size(int device) { return standin_is_device(device) ? sizes[device] : 0; }

bool standin_take(int device, uint64_t bytes) {
    pthread_once(&once, prepare);
    lock_shared();
    struct process *process = find_own();
    uint64_t least = sizes[device] < limit ? sizes[device] : limit;
    uint64_t sum = in_use(device, false);
    if (bytes > least || sum > least - bytes)
        sum = in_use(device, true);
    bool fits = bytes <= sizes[device] && sum <= sizes[device] - bytes;
    if (fits) {
        process->used[device] += bytes;
        if (sum + bytes > shared->most[device])
            shared->most[device] = sum + bytes;
        if (device == 0 && sum + bytes > limit) {
            shared->violations[OVER_LIMIT]++;
            if (sum > limit || process->used[device] != sum + bytes)
                shared->violations[FARTHER_OVER_LIMIT]++;
        }
    }
    pthread_mutex_unlock(&shared->lock);
    return fits;
}

void standin_give(int device, uint64_t bytes) {
    lock_shared();
    struct process *process = find_own();
    if (process->used[device] < bytes)
        abort();
    process->used[device] -= bytes;
    pthread_mutex_unlock(&shared->lock);
}

void standin_violation(enum violation which, const char *where) {
    pthread_once(&once, prepare);
    __atomic_fetch_add(&shared->violations[which], 1, __ATOMIC_SEQ_CST);
    standin_trace("violation", 0, "%d in %s", which, where);
}

unsigned long standin_violations(int which) {
    pthread_once(&once, prepare);
    return (unsigned long)__atomic_load_n(&shared->violations[which], __ATOMIC_SEQ_CST);
}

uint64_t standin_in_use(int device) {
    pthread_once(&once, prepare);
    lock_shared();
    uint64_t sum = in_use(device, true);
    pthread_mutex_unlock(&shared->lock);
    return sum;
}

uint64_t standin_most_in_use(int device) {
    pthread_once(&once, prepare);
    return shared->most[device];
}

CUresult standin_trace(const char *name, CUresult result, const char *format, ...) {
    pthread_once(&once, prepare);
    if (trace == NULL)
        return result;
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&calls_lock);
    for (int number = 0; number < NAMES; number++) {
        if (calls[number].name[0] == '\0')
            snprintf(calls[number].name, sizeof calls[number].name, "%s", name);
        if (strcmp(calls[number].name, name) == 0) {
            calls[number].calls++;
            break;
        }
    }
    pthread_mutex_unlock(&calls_lock);
    fprintf(trace, "%d %s(%s) = %d\n", (int)getpid(), name, text, result);
    fflush(trace);
    return result;
}

unsigned long standin_calls(const char *name) {
    unsigned long count = 0;
    pthread_mutex_lock(&calls_lock);
    for (int number = 0; number < NAMES && calls[number].name[0] != '\0'; number++)
        if (strcmp(calls[number].name, name) == 0)
            count = calls[number].calls;
    pthread_mutex_unlock(&calls_lock);
    return count;
}
