/* Preloaded into a container: writes to a file below SLOW_BELOW last as long as at SLOW_BYTES_PER_S. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void delay(int file, ssize_t written) {
    const char *below = getenv("SLOW_BELOW"), *rate = getenv("SLOW_BYTES_PER_S");
    char link[64], path[4096];
    if (written <= 0 || below == NULL || rate == NULL)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return;
    path[length] = 0;
    if (strncmp(path, below, strlen(below)) != 0)
        return;
    double seconds = (double)written / atof(rate);
    struct timespec pause = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    while (nanosleep(&pause, &pause) != 0)
        ;
}

#define SLOW(name, file, parameters, arguments)                                                                        \
    ssize_t name parameters {                                                                                          \
        static ssize_t(*real) parameters;                                                                              \
        if (real == NULL)                                                                                              \
            real = dlsym(RTLD_NEXT, #name);                                                                            \
        ssize_t written = real arguments;                                                                              \
        delay(file, written);                                                                                          \
        return written;                                                                                                \
    }

SLOW(write, file, (int file, const void *bytes, size_t size), (file, bytes, size))
SLOW(pwrite, file, (int file, const void *bytes, size_t size, off_t at), (file, bytes, size, at))
SLOW(pwrite64, file, (int file, const void *bytes, size_t size, off64_t at), (file, bytes, size, at))
SLOW(writev, file, (int file, const struct iovec *parts, int count), (file, parts, count))
SLOW(sendfile, file, (int file, int from, off_t *at, size_t size), (file, from, at, size))
SLOW(sendfile64, file, (int file, int from, off64_t *at, size_t size), (file, from, at, size))
SLOW(copy_file_range, file,
     (int from, off64_t *at, int file, off64_t *to, size_t size, unsigned int flags), (from, at, file, to, size, flags))
