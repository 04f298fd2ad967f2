/* Preloaded into a daemon by the tests: sets its wall clock wrong, and says whether it is synchronised. Every other
 * clock stays as it is. (Debian's libfaketime breaks absolute sleeps of Python, and leaves adjtimex alone.)
 * WRONG_CLOCK names a file of two 64-bit numbers: nanoseconds to add, and 1 if synchronised. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

struct setting {
    int64_t offset_ns;
    int64_t synced;
};

static const volatile struct setting *setting(void) {
    static const volatile struct setting *found;
    static const struct setting none = {0, 0};
    if (!found) {
        const char *path = getenv("WRONG_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *mapped = file < 0 ? MAP_FAILED : mmap(0, sizeof none, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0)
            close(file);
        found = mapped == MAP_FAILED ? &none : mapped;
    }
    return found;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = syscall(SYS_clock_gettime, clock, at);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t now = at->tv_sec * 1000000000LL + at->tv_nsec + setting()->offset_ns;
        at->tv_sec = now / 1000000000;
        at->tv_nsec = now % 1000000000;
    }
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *state) {
    int result = syscall(SYS_adjtimex, state);
    if (setting()->synced) {
        state->status &= ~STA_UNSYNC;
        return TIME_OK;
    }
    state->status |= STA_UNSYNC;
    return result < 0 ? result : TIME_ERROR;
}
