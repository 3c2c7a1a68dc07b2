/* How fast a disk or a file is: one request at a time, past the page cache (O_DIRECT).
 *
 * `sequential` goes from the beginning to the end, `random` over blocks drawn from a fixed
 * sequence. The time of a write includes the flush at its end.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_REQUESTS 65536

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000ULL + now.tv_nsec / 1000;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t drawn(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int measure(int disk, int writes, int in_order, uint64_t block, uint64_t length,
                   uint64_t requests, uint8_t *data, uint32_t *took_us)
{
    uint64_t state = 88172645463325252ULL;
    for (uint64_t i = 0; i < requests; i++) {
        uint64_t at = (in_order ? i : drawn(&state)) % (length / block) * block;
        uint64_t began = now_us();
        ssize_t count = writes ? pwrite(disk, data, block, at) : pread(disk, data, block, at);
        took_us[i] = now_us() - began;
        if (count != (ssize_t)block)
            return count < 0 ? errno : EIO;
    }
    return writes && fdatasync(disk) ? errno : 0;
}

void speed(const char *name, const char *what, const char *order, uint64_t block, uint64_t length,
           uint64_t requests)
{
    char path[256];
    static uint32_t took_us[MAX_REQUESTS];
    int writes = !strcmp(what, "write");
    snprintf(path, sizeof path, "%s%s", name[0] == '/' ? "" : "/dev/", name);
    int disk = open(path, (writes ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
    int failure = disk < 0 ? errno : 0;
    if (!block || length < block || !requests || requests > MAX_REQUESTS)
        failure = EINVAL;
    uint8_t *data = MAP_FAILED;
    uint64_t took = 0;
    if (!failure) {
        data = mmap(NULL, block, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED)
            failure = errno;
    }
    if (!failure) {
        memset(data, 0xa5, block);
        uint64_t began = now_us();
        failure = measure(disk, writes, !strcmp(order, "sequential"), block, length, requests,
                          data, took_us);
        took = now_us() - began;
    }
    if (data != MAP_FAILED)
        munmap(data, block);
    if (disk >= 0)
        close(disk);
    if (failure) {
        say("speed %s: %s", name, strerror(failure));
        return;
    }
    qsort(took_us, requests, sizeof took_us[0], by_value);
    say("speed %s %s %s %llu: requests %llu us %llu median_us %u p99_us %u", name, what, order,
        (unsigned long long)block, (unsigned long long)requests, (unsigned long long)took,
        took_us[requests / 2], took_us[requests * 99 / 100]);
}
