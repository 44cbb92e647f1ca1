/* Stands between the gateway's code and libc (LD_PRELOAD): writes down every call that changes a file
 * below CRASH_ROOT, with its data, into CRASH_LOG, and fails the calls it is told to fail.
 *
 * A record: kind u8, 7 bytes of padding, object u64, offset u64, lengths of two byte strings u32 u32,
 * then the strings. Kinds are in recorder.rs. One lock around call and record makes the order of the
 * records that of the effects.
 *
 * An open of "/crash/note/<text>" leaves a note in the log; one of
 * "/crash/fail/<first>/<last>/<errno>" fails the calls first to last, counted from here, and
 * "/crash/fail/0/0/0" ends that; after one of "/crash/die/<n>" the process dies at the n-th call from
 * here, and does not make it. All answer ENOENT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_len;
static int log_fd = -1;
/* The object behind a descriptor: its inode, or 0 for what is not ours. */
static uint64_t object[FDS];
static long calls, first_failing, last_failing;
static int failure;
/* The process ends before this call. */
static long last_call;

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off64_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_link)(const char *, const char *);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_rmdir)(const char *);

static void die(const char *what) {
    dprintf(2, "recorder: %s\n", what);
    abort();
}

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) die(name);
    return found;
}

__attribute__((constructor)) static void start(void) {
    real_open = next("open64");
    real_close = next("close");
    real_write = next("write");
    real_pwrite = next("pwrite64");
    real_fsync = next("fsync");
    real_fdatasync = next("fdatasync");
    real_ftruncate = next("ftruncate64");
    real_rename = next("rename");
    real_unlink = next("unlink");
    real_link = next("link");
    real_mkdir = next("mkdir");
    real_rmdir = next("rmdir");
    const char *dir = getenv("CRASH_ROOT"), *log = getenv("CRASH_LOG");
    if (!dir || !log) return;
    root_len = strlen(dir);
    memcpy(root, dir, root_len + 1);
    int fd = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 1000);
    real_close(fd);
    if (log_fd < 0) die("no log");
}

static int ours(const char *path) {
    return log_fd >= 0 && strncmp(path, root, root_len) == 0 &&
           (path[root_len] == 0 || path[root_len] == '/');
}

static uint64_t of(int fd) {
    return fd >= 0 && fd < FDS ? object[fd] : 0;
}

static void record(char kind, uint64_t ino, uint64_t at, const void *a, size_t a_len, const void *b,
                   size_t b_len) {
    struct {
        char kind, pad[7];
        uint64_t ino, at;
        uint32_t a, b;
    } head = {kind, {0}, ino, at, (uint32_t)a_len, (uint32_t)b_len};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)a, a_len}, {(void *)b, b_len}};
    if (writev(log_fd, parts, 3) != (ssize_t)(sizeof head + a_len + b_len)) die("short log");
}

static void path_record(char kind, uint64_t ino, const char *a, const char *b) {
    record(kind, ino, 0, a, strlen(a), b, b ? strlen(b) : 0);
}

/* Counts a changing call; true when it is to fail, with errno set. */
static int fails(const char *name) {
    calls++;
    if (last_call && calls >= last_call) _exit(7);
    if (!failure || calls < first_failing || calls > last_failing) return 0;
    record('F', 0, (uint64_t)failure, name, strlen(name), NULL, 0);
    errno = failure;
    return 1;
}

static void command(const char *text) {
    if (log_fd < 0) return;
    pthread_mutex_lock(&lock);
    if (strncmp(text, "note/", 5) == 0) {
        record('N', 0, (uint64_t)calls, text + 5, strlen(text + 5), NULL, 0);
    } else if (sscanf(text, "fail/%ld/%ld/%d", &first_failing, &last_failing, &failure) == 3) {
        calls = 0;
    } else if (sscanf(text, "die/%ld", &last_call) == 1) {
        calls = 0;
    } else {
        die("unknown command");
    }
    pthread_mutex_unlock(&lock);
}

static int open_any(const char *path, int flags, mode_t mode) {
    if (strncmp(path, "/crash/", 7) == 0) {
        command(path + 7);
        errno = ENOENT;
        return -1;
    }
    if (!ours(path)) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int absent = stat(path, &before) != 0;
    int creates = (flags & O_CREAT) && absent, empties = (flags & O_TRUNC) && !absent;
    int writes = (flags & O_ACCMODE) != O_RDONLY;
    int fd = -1;
    /* On a read-only file system an open for writing fails whether it changes anything or not. */
    if ((creates || empties || (writes && failure == EROFS)) && fails("open")) goto out;
    fd = real_open(path, flags, mode);
    if (fd < 0) goto out;
    if (fd >= FDS) die("descriptor");
    struct stat now;
    if (fstat(fd, &now) != 0) die("fstat");
    object[fd] = now.st_ino;
    if (creates) path_record('C', now.st_ino, path, NULL);
    if (empties) record('T', now.st_ino, 0, NULL, 0, NULL, 0);
out:
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...) {    \
        va_list more;                               \
        va_start(more, flags);                      \
        mode_t mode = va_arg(more, mode_t);         \
        va_end(more);                               \
        return open_any(path, flags, mode);         \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (of(fd)) object[fd] = 0;
    return real_close(fd);
}

static ssize_t write_at(int fd, const void *data, size_t length, off64_t at, int moves) {
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (at < 0) at = lseek(fd, 0, SEEK_CUR);
    if (fails("write")) {
        /* A disk that gives an error may have written some of it. */
        if (failure == EIO && length > 1) {
            ssize_t half = real_pwrite(fd, data, length / 2, at);
            if (half > 0) record('W', of(fd), (uint64_t)at, data, (size_t)half, NULL, 0);
        }
        errno = failure;
    } else {
        done = moves ? real_write(fd, data, length) : real_pwrite(fd, data, length, at);
        if (done > 0) record('W', of(fd), (uint64_t)at, data, (size_t)done, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    return of(fd) ? write_at(fd, data, length, -1, 1) : real_write(fd, data, length);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    return of(fd) ? write_at(fd, data, length, at, 0) : real_pwrite(fd, data, length, at);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    return pwrite64(fd, data, length, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (of(fd)) die("writev is not followed");
    if (!real) real = next("writev");
    return real(fd, parts, count);
}

static int sync_any(int fd, int (*real)(int)) {
    if (!of(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    struct stat now;
    char link[64], path[PATH_MAX];
    int done = -1, directory = fstat(fd, &now) == 0 && S_ISDIR(now.st_mode);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    if (length < 0) length = 0;
    /* Data that were waiting are not on the disk now, and no later sync will bring them there. Names
     * are: a file system that cannot write its own structures stops. */
    if (fails("fsync")) {
        if (!directory) record('E', of(fd), 0, NULL, 0, NULL, 0);
        errno = failure;
    } else {
        done = real(fd);
        record(directory ? 'D' : 'S', of(fd), 0, path, (size_t)length, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) { return sync_any(fd, real_fsync); }
int fdatasync(int fd) { return sync_any(fd, real_fdatasync); }

int ftruncate64(int fd, off64_t length) {
    if (!of(fd)) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (!fails("ftruncate")) {
        done = real_ftruncate(fd, length);
        if (done == 0) record('T', of(fd), (uint64_t)length, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

/* Calls with one or two names. */
#define NAMES(condition, kind, name, call, from, to)     \
    if (!(condition)) return call;                       \
    pthread_mutex_lock(&lock);                           \
    int done = -1;                                       \
    if (!fails(name)) {                                  \
        done = call;                                     \
        if (done == 0) path_record(kind, 0, from, to);   \
    }                                                    \
    pthread_mutex_unlock(&lock);                         \
    return done;

int rename(const char *from, const char *to) {
    NAMES(ours(from) || ours(to), 'R', "rename", real_rename(from, to), from, to)
}
int unlink(const char *path) { NAMES(ours(path), 'U', "unlink", real_unlink(path), path, NULL) }
int rmdir(const char *path) { NAMES(ours(path), 'X', "rmdir", real_rmdir(path), path, NULL) }
int mkdir(const char *path, mode_t mode) {
    /* An existing directory is an answer, not a change. */
    struct stat before;
    if (ours(path) && stat(path, &before) == 0) return real_mkdir(path, mode);
    NAMES(ours(path), 'M', "mkdir", real_mkdir(path, mode), path, NULL)
}
int link(const char *from, const char *to) {
    struct stat before;
    if (ours(to) && stat(to, &before) == 0) return real_link(from, to);
    NAMES(ours(from) || ours(to), 'L', "link", real_link(from, to), from, to)
}
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    static int (*real)(int, const char *, int, const char *, int);
    if (from_dir == AT_FDCWD && to_dir == AT_FDCWD) return link(from, to);
    if (!real) real = next("linkat");
    return real(from_dir, from, to_dir, to, flags);
}
int unlinkat(int dir, const char *path, int flags) {
    static int (*real)(int, const char *, int);
    if (dir == AT_FDCWD && !(flags & AT_REMOVEDIR)) return unlink(path);
    if (log_fd >= 0 && of(dir)) die("unlinkat is not followed");
    if (!real) real = next("unlinkat");
    return real(dir, path, flags);
}

/* Calls that nobody makes today: who starts to must teach the recorder. */
#define UNKNOWN(type, name, args) type name args { die(#name " is not followed"); return -1; }
UNKNOWN(int, fallocate64, (int fd, int mode, off64_t at, off64_t length))
UNKNOWN(int, fallocate, (int fd, int mode, off_t at, off_t length))
UNKNOWN(int, posix_fallocate64, (int fd, off64_t at, off64_t length))
UNKNOWN(int, sync_file_range, (int fd, off64_t at, off64_t length, unsigned flags))
UNKNOWN(int, renameat2, (int a, const char *b, int c, const char *d, unsigned e))
UNKNOWN(int, renameat, (int a, const char *b, int c, const char *d))
UNKNOWN(ssize_t, copy_file_range, (int a, off64_t *b, int c, off64_t *d, size_t e, unsigned f))
UNKNOWN(ssize_t, pwritev64, (int fd, const struct iovec *a, int b, off64_t at))
