/* Another time of day, and no way off this machine, for any program (LD_PRELOAD).
 *
 * WORLD_SHIFT  seconds that are added to the time of day; the clock that counts durations stays as it is
 * WORLD_NET    file to which each attempt to reach another machine, or to ask for a name, is appended; it then fails
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static time_t shift(void) {
    const char *text = getenv("WORLD_SHIFT");
    return text ? atoll(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    int result = syscall(SYS_gettimeofday, now, zone);
    if (!result) now->tv_sec += shift();
    return result;
}

/* A wait until a time of day would never end, or end at once, if only one side's clock were shifted. */
int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    struct timespec real = *until;
    real.tv_sec -= shift();
    return REAL(pthread_cond_timedwait)(condition, mutex, &real);
}

static int refused(const char *what) {
    const char *log = getenv("WORLD_NET");
    char line[512];
    if (!log) return 0;
    int fd = syscall(SYS_open, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int length = snprintf(line, sizeof line, "%d %s\n", getpid(), what);
    if (fd >= 0) {
        syscall(SYS_write, fd, line, length < (int)sizeof line ? length : (int)sizeof line - 1);
        syscall(SYS_close, fd);
    }
    return 1;
}

static int leaves(const struct sockaddr *to) {
    if (!to || (to->sa_family != AF_INET && to->sa_family != AF_INET6)) return 0;
    if (to->sa_family == AF_INET) return *(const unsigned char *)&((const struct sockaddr_in *)to)->sin_addr != 127;
    const struct in6_addr *address = &((const struct sockaddr_in6 *)to)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(address)) return address->s6_addr[12] != 127;
    return !IN6_IS_ADDR_LOOPBACK(address);
}

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    if (leaves(to) && refused("connect")) {
        errno = ENETUNREACH;
        return -1;
    }
    return REAL(connect)(fd, to, size);
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *to, socklen_t length) {
    if (leaves(to) && refused("sendto")) {
        errno = ENETUNREACH;
        return -1;
    }
    return REAL(sendto)(fd, data, size, flags, to, length);
}

/* Names of this machine and numbers are nobody's business; every other name would go to a server. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    char own[256] = "", text[320];
    gethostname(own, sizeof own - 1);
    int local = !node || !strcmp(node, "localhost") || !strcmp(node, own) || strspn(node, "0123456789abcdef.:") == strlen(node);
    snprintf(text, sizeof text, "getaddrinfo %s", node ? node : "");
    if (!local && refused(text)) return EAI_NONAME;
    return REAL(getaddrinfo)(node, service, hints, found);
}
