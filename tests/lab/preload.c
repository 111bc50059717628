/* What a daemon believes of its host: a wall clock that is ahead by LAB_CLOCK_MS, and a disk of which every fsync takes
 * LAB_FSYNC_MS longer. Loaded by LD_PRELOAD into the programs under test, which reach both through libc. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long milliseconds(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static long ahead = -1;
    int result = (int)syscall(SYS_clock_gettime, clock, at);
    if (ahead < 0)
        ahead = milliseconds("LAB_CLOCK_MS");
    if (result == 0 && clock == CLOCK_REALTIME)
        at->tv_sec += ahead / 1000;
    return result;
}

static void wait_for_the_disk(void) {
    long ms = milliseconds("LAB_FSYNC_MS");
    struct timespec span = {ms / 1000, ms % 1000 * 1000000};
    if (ms > 0)
        nanosleep(&span, 0);
}

int fsync(int file) {
    wait_for_the_disk();
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    wait_for_the_disk();
    return (int)syscall(SYS_fdatasync, file);
}
