/* loggen: numbered, time-stamped lines for tests and benchmarks.
 *
 *   loggen gen -n LINES [-s SIZE] [-b BUFFER] [-r LINES_PER_S] [-e] [-g GATE] [-k FILE] [-o FILE]
 *       Lines "S0000000000 NANOSECONDS padding\n" of SIZE bytes (default 100) on stdout, BUFFER bytes a write() (default
 *       4096; 0: one write() a line). -r paces in bursts of 10 ms, at or below 2000 lines/s line by line. -e puts every
 *       second line on stderr. -g waits until the file GATE exists. -k stays alive after the last line until FILE
 *       exists. -o writes what happened (lines, errno, first and last time and, with -t, the longest write, in ns) to FILE.
 *   loggen check [-n LINES]   reads such lines, counts missing, doubled and misordered ones; exit 1 if there are any.
 *   loggen lat [-k SKIP]      reads such lines and prints p50, p99, p99.9 and the largest age of a line in ns.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;

static u64 now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

static void sleep_until(u64 due) {
    struct timespec t = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}

static void wait_for(const char *path) {
    struct stat info;
    while (stat(path, &info)) usleep(1000);
}

static void digits(char *to, int width, u64 value) {
    for (int i = width - 1; i >= 0; i--, value /= 10) to[i] = (char)('0' + value % 10);
}

static u64 longest_write, write_errno;
static int timed;

static int put(int fd, const char *bytes, size_t left) {
    while (left) {
        u64 before = timed ? now_ns(CLOCK_MONOTONIC) : 0;
        ssize_t n = write(fd, bytes, left);
        u64 took = timed ? now_ns(CLOCK_MONOTONIC) - before : 0;
        if (took > longest_write) longest_write = took;
        if (n < 0) {
            if (errno == EINTR) continue;
            write_errno = (u64)errno;
            return -1;
        }
        bytes += n;
        left -= (size_t)n;
    }
    return 0;
}

struct stream {
    int fd;
    char *buffer;
    size_t used;
};

static int emit(struct stream *to, const char *line, size_t size, size_t buffer) {
    if (!buffer) return put(to->fd, line, size);
    if (to->used + size > buffer) {
        size_t fits = buffer - to->used;
        memcpy(to->buffer + to->used, line, fits);
        if (put(to->fd, to->buffer, buffer)) return -1;
        memcpy(to->buffer, line + fits, size - fits);
        to->used = size - fits;
        return 0;
    }
    memcpy(to->buffer + to->used, line, size);
    to->used += size;
    return 0;
}

static int gen(int argc, char **argv) {
    u64 lines = 0, size = 100, buffer = 4096, rate = 0;
    int both = 0, option;
    const char *gate = NULL, *keep = NULL, *report = NULL;
    while ((option = getopt(argc, argv, "n:s:b:r:eg:k:o:t")) != -1) switch (option) {
        case 'n': lines = strtoull(optarg, NULL, 10); break;
        case 's': size = strtoull(optarg, NULL, 10); break;
        case 'b': buffer = strtoull(optarg, NULL, 10); break;
        case 'r': rate = strtoull(optarg, NULL, 10); break;
        case 'e': both = 1; break;
        case 't': timed = 1; break;
        case 'g': gate = optarg; break;
        case 'k': keep = optarg; break;
        case 'o': report = optarg; break;
        default: return 2;
    }
    if (!lines || size < 33) return fprintf(stderr, "loggen gen: -n LINES is needed, -s is at least 33\n"), 2;
    if (buffer && buffer < size) buffer = size;
    signal(SIGPIPE, SIG_IGN);
    char *line = malloc(size);
    static const char text[] = "the quick brown fox jumps over the lazy dog GET /index.html 200 ";
    for (u64 i = 0; i < size; i++) line[i] = text[i % (sizeof text - 1)];
    line[0] = 'S', line[11] = ' ', line[31] = ' ', line[size - 1] = '\n';
    struct stream streams[2] = {{1, malloc(buffer + 1), 0}, {2, malloc(buffer + 1), 0}};
    if (gate) wait_for(gate);
    u64 first = now_ns(CLOCK_REALTIME);
    u64 began = now_ns(CLOCK_MONOTONIC), burst = rate > 2000 ? rate / 100 : 1, i;
    for (i = 0; i < lines; i++) {
        if (rate && i % burst == 0) {
            u64 due = began + (u64)((unsigned __int128)i * 1000000000u / rate);
            if (due > now_ns(CLOCK_MONOTONIC)) sleep_until(due);
        }
        digits(line + 1, 10, i);
        digits(line + 12, 19, now_ns(CLOCK_REALTIME));
        if (emit(&streams[both && i % 2], line, size, rate ? 0 : buffer)) break;
    }
    for (int s = 0; s < 2; s++)
        if (streams[s].used && !write_errno) put(streams[s].fd, streams[s].buffer, streams[s].used);
    if (report) {
        char partial[4096];
        snprintf(partial, sizeof partial, "%s.new", report);
        FILE *file = fopen(partial, "w");
        if (file) {
            fprintf(file, "{\"lines\": %llu, \"longest_write_ns\": %llu, \"errno\": %llu, \"first_ns\": %llu, \"last_ns\": %llu}\n",
                    (unsigned long long)i, (unsigned long long)longest_write, (unsigned long long)write_errno,
                    (unsigned long long)first, (unsigned long long)now_ns(CLOCK_REALTIME));
            fclose(file);
            rename(partial, report);
        }
    }
    if (keep) wait_for(keep);
    return write_errno ? 1 : 0;
}

static int check(int argc, char **argv) {
    u64 expected = 0, lines = 0, missing = 0, doubled = 0, disorder = 0, next = 0, bad = 0;
    int option;
    while ((option = getopt(argc, argv, "n:")) != -1)
        if (option == 'n') expected = strtoull(optarg, NULL, 10);
        else return 2;
    u64 cap = expected ? expected : 1u << 20;
    unsigned char *seen = calloc(cap, 1);
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&line, &room, stdin)) > 0) {
        if (length < 33 || line[0] != 'S' || line[length - 1] != '\n') {
            bad++;
            continue;
        }
        u64 number = strtoull(line + 1, NULL, 10);
        while (!expected && number >= cap) {
            seen = realloc(seen, cap * 2);
            memset(seen + cap, 0, cap);
            cap *= 2;
        }
        if (number >= cap || seen[number]++) doubled++;
        if (number < next) disorder++;
        next = number + 1;
        lines++;
    }
    u64 upto = expected ? expected : next;
    for (u64 i = 0; i < upto; i++) missing += !seen[i];
    printf("{\"lines\": %llu, \"missing\": %llu, \"doubled\": %llu, \"disorder\": %llu, \"bad\": %llu}\n",
           (unsigned long long)lines, (unsigned long long)missing, (unsigned long long)doubled,
           (unsigned long long)disorder, (unsigned long long)bad);
    return missing || doubled || disorder || bad;
}

static int by_value(const void *a, const void *b) {
    u64 x = *(const u64 *)a, y = *(const u64 *)b;
    return (x > y) - (x < y);
}

static int lat(int argc, char **argv) {
    u64 skip = 0, count = 0, room = 1 << 16, *ages = malloc(room * sizeof *ages);
    int option;
    while ((option = getopt(argc, argv, "k:")) != -1)
        if (option == 'k') skip = strtoull(optarg, NULL, 10);
        else return 2;
    static char block[1 << 20];
    size_t have = 0;
    ssize_t n;
    while ((n = read(0, block + have, sizeof block - have)) > 0) {
        u64 now = now_ns(CLOCK_REALTIME);
        have += (size_t)n;
        char *at = block, *end;
        while ((end = memchr(at, '\n', have - (size_t)(at - block)))) {
            if (end - at > 32 && at[0] == 'S') {
                if (skip) skip--;
                else {
                    if (count == room) ages = realloc(ages, (room *= 2) * sizeof *ages);
                    ages[count++] = now - strtoull(at + 12, NULL, 10);
                }
            }
            at = end + 1;
        }
        have -= (size_t)(at - block);
        memmove(block, at, have);
    }
    if (!count) return 1;
    qsort(ages, count, sizeof *ages, by_value);
    printf("{\"lines\": %llu, \"p50_ns\": %llu, \"p99_ns\": %llu, \"p999_ns\": %llu, \"max_ns\": %llu}\n",
           (unsigned long long)count, (unsigned long long)ages[count / 2], (unsigned long long)ages[count * 99 / 100],
           (unsigned long long)ages[count * 999 / 1000], (unsigned long long)ages[count - 1]);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "gen")) return gen(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "check")) return check(argc - 1, argv + 1);
    if (argc > 1 && !strcmp(argv[1], "lat")) return lat(argc - 1, argv + 1);
    fprintf(stderr, "usage: loggen gen|check|lat\n");
    return 2;
}
