/* receiver: a destination of logs that is cheaper than what sends to it, for benchmarks.
 *
 *   receiver forward|lines -o FILE [-s SIZE] [-p]
 *       Listens on a free port of 127.0.0.1 until it is killed, for any number of connections. FILE is memory to share
 *       with whoever watches, five numbers of 64 bits: the port, then of what has come so far the records, the sum of
 *       their numbers, records that are not loggen's, and the bytes of all messages.
 *       forward: Fluent forward protocol v1.5, Message, Forward and PackedForward (not gzipped), acknowledged if asked
 *       for. lines: messages that a newline ends, as of syslog over TCP, each with a line of SIZE bytes (default 100, its
 *       newline counted) at its end. A record's text is a line of loggen, which begins with its number.
 *       -p prints every record's text on stdout as it comes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

typedef uint64_t u64;
typedef unsigned char u8;

struct seen {
    volatile u64 port, records, sum, strange, bytes;
};

struct peer {
    int fd;
    u8 *buffer;
    size_t used, room;
};

static struct seen *seen;
static size_t line_size = 100;
static int printing;

static void die(const char *what) {
    fprintf(stderr, "receiver: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void malformed(const char *what) {
    fprintf(stderr, "receiver: %s\n", what);
    exit(1);
}

static void count(const u8 *text, size_t size) {
    u64 number = 0;
    int digits = 0;
    if (size > 11 && text[0] == 'S')
        for (; digits < 10 && text[1 + digits] >= '0' && text[1 + digits] <= '9'; digits++)
            number = number * 10 + (u64)(text[1 + digits] - '0');
    seen->sum += number;
    seen->strange += digits != 10;
    seen->records++;
    if (printing) {
        fwrite(text, 1, size, stdout);
        if (!size || text[size - 1] != '\n') putc('\n', stdout);
    }
}

/* -- msgpack ------------------------------------------------------------------------------------------------------ */

struct item {
    enum { SCALAR, BYTES, ARRAY, MAP } kind; /* BYTES: str and bin; SCALAR: numbers, times */
    u64 size;                                /* of bytes, elements or pairs that follow */
};

static u64 big_endian(const u8 *at, int size) {
    u64 value = 0;
    while (size--) value = value << 8 | *at++;
    return value;
}

/* Read a value's head; what follows is its bytes, elements or pairs. NULL: it is not there whole. */
static const u8 *head(const u8 *at, const u8 *end, struct item *found) {
    if (at >= end) return NULL;
    u8 type = *at++;
    int width = 0, extra = 0;
    *found = (struct item){SCALAR, 0};
    if (type < 0x80 || type >= 0xe0 || type == 0xc0 || type == 0xc2 || type == 0xc3) return at;
    if (type < 0x90) return *found = (struct item){MAP, type & 15}, at;
    if (type < 0xa0) return *found = (struct item){ARRAY, type & 15}, at;
    if (type < 0xc0) return *found = (struct item){BYTES, type & 31}, at;
    if (type >= 0xcc && type <= 0xd3) found->size = 1u << (type & 3);
    else if (type == 0xca || type == 0xcb) found->size = type == 0xca ? 4 : 8;
    else if (type >= 0xd4 && type <= 0xd8) found->size = (1u << (type - 0xd4)) + 1;
    else if (type >= 0xc7 && type <= 0xc9) width = 1 << (type - 0xc7), extra = 1;
    else if (type >= 0xc4 && type <= 0xc6) found->kind = BYTES, width = 1 << (type - 0xc4);
    else if (type >= 0xd9 && type <= 0xdb) found->kind = BYTES, width = 1 << (type - 0xd9);
    else if (type == 0xdc || type == 0xdd) found->kind = ARRAY, width = type == 0xdc ? 2 : 4;
    else if (type == 0xde || type == 0xdf) found->kind = MAP, width = type == 0xde ? 2 : 4;
    else malformed("no msgpack");
    if (end - at < width) return NULL;
    if (width) found->size = big_endian(at, width) + (u64)extra;
    return at + width;
}

/* Return what follows a value; NULL: it is not there whole. */
static const u8 *skip(const u8 *at, const u8 *end) {
    for (u64 left = 1; left; left--) {
        struct item item;
        if (!(at = head(at, end, &item))) return NULL;
        if (item.kind == ARRAY) left += item.size;
        else if (item.kind == MAP) left += 2 * item.size;
        else if ((u64)(end - at) < item.size) return NULL;
        else at += item.size;
    }
    return at;
}

/* -- Fluent forward protocol -------------------------------------------------------------------------------------- */

static const u8 *need(const u8 *at) {
    if (!at) malformed("a message ends in the middle of a record");
    return at;
}

/* Count the record at `at`: a map. */
static const u8 *record(const u8 *at, const u8 *end) {
    struct item map, name, text;
    at = need(head(at, end, &map));
    if (map.kind != MAP) malformed("a record is no map");
    while (map.size--) {
        const u8 *key = need(head(at, end, &name));
        at = need(skip(at, end));
        if (name.kind == BYTES && name.size == 3 && !memcmp(key, "log", 3)) {
            const u8 *value = need(head(at, end, &text));
            at = need(skip(at, end));
            count(value, text.size);
        } else at = need(skip(at, end));
    }
    return at;
}

/* Count an entry, [time, record]. */
static const u8 *entry(const u8 *at, const u8 *end) {
    struct item pair;
    at = need(head(at, end, &pair));
    if (pair.kind != ARRAY || pair.size != 2) malformed("an entry is no pair");
    return record(need(skip(at, end)), end);
}

static void acknowledge(int fd, const u8 *options, const u8 *end) {
    struct item map, name, chunk;
    options = need(head(options, end, &map));
    while (map.kind == MAP && map.size--) {
        const u8 *key = need(head(options, end, &name));
        const u8 *value = need(skip(options, end));
        options = need(skip(value, end));
        const u8 *text = need(head(value, end, &chunk));
        if (name.size != 5 || memcmp(key, "chunk", 5) || chunk.size > 200) continue;
        u8 answer[256] = "\x81\xa3" "ack\xd9";
        answer[6] = (u8)chunk.size;
        memcpy(answer + 7, text, chunk.size);
        if (send(fd, answer, 7 + chunk.size, MSG_NOSIGNAL) < 0) perror("receiver: send");
    }
}

/* Count the records of a message that is there whole: [tag, time, record, options?] or [tag, entries, options?]. */
static void message(int fd, const u8 *at, const u8 *end) {
    struct item array, second;
    at = need(head(at, end, &array));
    if (array.kind != ARRAY || array.size < 2 || array.size > 4) malformed("a message is no array of two to four");
    at = need(skip(at, end));
    const u8 *inside = need(head(at, end, &second)), *behind = need(skip(at, end));
    u64 parts = 2;
    if (second.kind == ARRAY) {
        while (second.size--) inside = entry(inside, behind);
    } else if (second.kind == BYTES) {
        while (inside < behind) inside = entry(inside, behind);
    } else {
        behind = record(behind, end);
        parts = 3;
    }
    if (array.size > parts) acknowledge(fd, behind, end);
}

static size_t take_forward(struct peer *from) {
    const u8 *at = from->buffer, *end = at + from->used, *behind;
    while ((behind = skip(at, end))) {
        message(from->fd, at, behind);
        at = behind;
    }
    return (size_t)(at - from->buffer);
}

/* -- messages that a newline ends --------------------------------------------------------------------------------- */

static size_t take_lines(struct peer *from) {
    const u8 *at = from->buffer, *end = at + from->used, *newline;
    while ((newline = memchr(at, '\n', (size_t)(end - at)))) {
        size_t size = (size_t)(newline - at) + 1;
        if (size < line_size) count(at, size);
        else count(newline + 1 - line_size, line_size);
        at = newline + 1;
    }
    return (size_t)(at - from->buffer);
}

/* -- connections -------------------------------------------------------------------------------------------------- */

static int hear(struct peer *from, size_t (*take)(struct peer *)) {
    if (from->room - from->used < 1u << 17) from->buffer = realloc(from->buffer, from->room = from->room * 2 + (1u << 18));
    ssize_t n = recv(from->fd, from->buffer + from->used, from->room - from->used, 0);
    if (n <= 0) return n < 0 && errno == EINTR;
    from->used += (size_t)n;
    size_t taken = take(from);
    memmove(from->buffer, from->buffer + taken, from->used -= taken);
    seen->bytes += (u64)n;
    if (printing) fflush(stdout);
    return 1;
}

int main(int argc, char **argv) {
    const char *shared = NULL;
    int option;
    while ((option = getopt(argc, argv, "o:s:p")) != -1) switch (option) {
        case 'o': shared = optarg; break;
        case 's': line_size = strtoull(optarg, NULL, 10); break;
        case 'p': printing = 1; break;
        default: return 2;
    }
    const char *kind = optind < argc ? argv[optind] : "";
    size_t (*take)(struct peer *) = !strcmp(kind, "forward") ? take_forward : !strcmp(kind, "lines") ? take_lines : NULL;
    if (!shared || !take) return fprintf(stderr, "usage: receiver -o FILE [-s SIZE] [-p] forward|lines\n"), 2;

    int memory = open(shared, O_RDWR | O_CREAT, 0600);
    if (memory < 0 || ftruncate(memory, sizeof *seen)) die(shared);
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (seen == MAP_FAILED) die(shared);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM, 0), events = epoll_create1(0);
    if (bind(listening, (struct sockaddr *)&address, size) || listen(listening, 64)) die("listen");
    getsockname(listening, (struct sockaddr *)&address, &size);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(events, EPOLL_CTL_ADD, listening, &event);
    seen->port = ntohs(address.sin_port);

    while (epoll_wait(events, &event, 1, -1) > 0 || errno == EINTR) {
        struct peer *from = event.data.ptr;
        if (!from) {
            from = calloc(1, sizeof *from);
            from->fd = accept(listening, NULL, NULL);
            setsockopt(from->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* an acknowledgement goes at once */
            event = (struct epoll_event){.events = EPOLLIN, .data.ptr = from};
            epoll_ctl(events, EPOLL_CTL_ADD, from->fd, &event);
        } else if (!hear(from, take)) {
            close(from->fd);
            free(from->buffer);
            free(from);
        }
    }
    die("epoll_wait");
}
