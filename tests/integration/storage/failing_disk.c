/* A disk that fails as it is told: LD_PRELOAD this, and name a control file in FAILING_DISK.
 *
 * The file holds "CALL ERRNO": CALL is `sync` (fsync, fdatasync) or `write` (writes and syncs).
 * An empty or missing file is a disk that works. Only files whose names contain ".db" are hurt. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int told(const char *call, int fd)
{
    char link[64], path[4096], text[64];
    const char *control = getenv("FAILING_DISK");
    if (!control)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (!strstr(path, ".db"))
        return 0;
    int file = open(control, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0)
        return 0;
    text[length] = 0;
    char which[16];
    int error;
    if (sscanf(text, "%15s %d", which, &error) != 2)
        return 0;
    if (strcmp(which, "write") != 0 && strcmp(which, call) != 0)
        return 0;
    errno = error;
    return 1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int fsync(int fd) { REAL(fsync); return told("sync", fd) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return told("sync", fd) ? -1 : real(fd); }
ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    return told("write", fd) ? -1 : real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    REAL(pwrite);
    return told("write", fd) ? -1 : real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    return told("write", fd) ? -1 : real(fd, data, size, at);
}
int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64);
    return told("write", fd) ? -1 : real(fd, size);
}
