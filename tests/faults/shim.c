/* Faults at the k-th write, rename, fsync, unlink, mkdir or read (d: data in) below a folder, for any program (LD_PRELOAD).
 *
 * SHIM_ROOT   only paths that begin with this count           SHIM_MATCH  ... and hold this text
 * SHIM_KINDS  letters of the kinds that count: w r s u m d     SHIM_STATE  file of 8 bytes, shared by all processes: the count
 * SHIM_AT     the number of the event that goes wrong         SHIM_LOG    file to which each counted event is appended
 * SHIM_DO     stop: write SHIM_STATE.fired (pid kind path) and stop this process before the event; the test kills it
 *             enospc: this and every later counted event fails with ENOSPC, but a full disk lets go of files (u);
 *             eio: this event fails with EIO
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long *count;

static long *counter(void) {
    const char *state = getenv("SHIM_STATE");
    if (count || !state) return count;
    int fd = syscall(SYS_open, state, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return NULL;
    void *page = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (page != MAP_FAILED) count = page;
    return count;
}

static void note(const char *name, int flags, char kind, const char *path) {
    char line[PATH_MAX + 64];
    int fd = syscall(SYS_open, name, flags | O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    int length = snprintf(line, sizeof line, "%d %c %s\n", getpid(), kind, path);
    if (fd >= 0) {
        syscall(SYS_write, fd, line, length);
        syscall(SYS_close, fd);
    }
}

/* Returns the errno with which the event must fail, or 0. */
static int event(char kind, const char *path) {
    const char *root = getenv("SHIM_ROOT"), *match = getenv("SHIM_MATCH"), *kinds = getenv("SHIM_KINDS");
    char absolute[PATH_MAX];
    if (!root || !path) return 0;
    if (path[0] != '/') {
        char folder[PATH_MAX];
        if (!getcwd(folder, sizeof folder)) return 0;
        if (snprintf(absolute, sizeof absolute, "%s/%s", folder, path) >= (int)sizeof absolute) return 0;
        path = absolute;
    }
    if (strncmp(path, root, strlen(root)) || (match && !strstr(path, match)) || (kinds && !strchr(kinds, kind))) return 0;
    long *events = counter();
    if (!events) return 0;
    long mine = __atomic_add_fetch(events, 1, __ATOMIC_SEQ_CST);
    const char *log = getenv("SHIM_LOG"), *at = getenv("SHIM_AT"), *what = getenv("SHIM_DO");
    if (log) note(log, O_APPEND, kind, path);
    if (!at || !what) return 0;
    if (!strcmp(what, "enospc")) return mine >= atol(at) && kind != 'u' ? ENOSPC : 0;
    if (mine != atol(at)) return 0;
    if (!strcmp(what, "eio")) return EIO;
    char fired[PATH_MAX];
    snprintf(fired, sizeof fired, "%s.fired", getenv("SHIM_STATE"));
    note(fired, O_TRUNC, kind, path);
    raise(SIGSTOP);
    return 0;
}

static int fd_event(char kind, int fd) {
    char link[64], path[PATH_MAX];
    if (!getenv("SHIM_ROOT")) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlink, link, path, sizeof path - 1);
    if (length <= 0 || path[0] != '/') return 0; /* sockets and pipes have no path */
    path[length] = 0;
    return event(kind, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(expression)      \
    do {                      \
        int bad = expression; \
        if (bad) {            \
            errno = bad;      \
            return -1;        \
        }                     \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) { FAIL(fd_event('w', fd)); return REAL(write)(fd, data, size); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { FAIL(fd_event('w', fd)); return REAL(pwrite64)(fd, data, size, at); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { FAIL(fd_event('w', fd)); return REAL(pwrite)(fd, data, size, at); }
ssize_t read(int fd, void *data, size_t size) { FAIL(fd_event('d', fd)); return REAL(read)(fd, data, size); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { FAIL(fd_event('d', fd)); return REAL(pread64)(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int n) { FAIL(fd_event('w', fd)); return REAL(writev)(fd, parts, n); }
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { FAIL(fd_event('w', out)); return syscall(SYS_sendfile, out, in, at, size); }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) { FAIL(fd_event('w', out)); return syscall(SYS_copy_file_range, in, from, out, to, size, flags); }
int ftruncate64(int fd, off64_t size) { FAIL(fd_event('w', fd)); return REAL(ftruncate64)(fd, size); }
int fsync(int fd) { FAIL(fd_event('s', fd)); return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL(fd_event('s', fd)); return REAL(fdatasync)(fd); }
int rename(const char *from, const char *to) { FAIL(event('r', to)); return REAL(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) { FAIL(event('r', to)); return REAL(renameat)(a, from, b, to); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { FAIL(event('r', to)); return REAL(renameat2)(a, from, b, to, flags); }
int unlink(const char *path) { FAIL(event('u', path)); return REAL(unlink)(path); }
int mkdir(const char *path, mode_t mode) { FAIL(event('m', path)); return REAL(mkdir)(path, mode); }
