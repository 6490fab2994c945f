/* A load that is known: what it does, and what the kernel says that it has used itself.

   load burn MILLISECONDS    says ready, waits for SIGUSR1, burns CPU for that time, prints the CPU time in
                             microseconds by getrusage(2), waits for ever
   load touch BYTES          writes to as much memory, says ready, waits for ever
   load write FILE BYTES     as burn, but writes a file with O_DIRECT, a MiB at once, and prints the bytes
   load brief MILLISECONDS   burns as much CPU time, prints nothing, ends
*/
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

static long microseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static long used(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

static void burn(clockid_t clock, long milliseconds) {
    long until = microseconds(clock) + milliseconds * 1000;
    while (microseconds(clock) < until)
        for (volatile int i = 0; i < 100000; i++)
            ;
}

static long write_directly(const char *path, long bytes) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_DIRECT, 0600);
    char *block = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    long written = 0;
    memset(block, 'x', MIB);
    while (file >= 0 && written < bytes && write(file, block, MIB) == MIB)
        written += MIB;
    return written;
}

static void say(const char *what, long number) {
    printf("%s %ld\n", what, number);
    fflush(stdout);
}

static void await_go(void) {
    int signal;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    say("ready", 0);
    sigwait(&set, &signal);
}

int main(int count, char **words) {
    const char *what = count > 2 ? words[1] : "";
    if (!strcmp(what, "brief")) {
        burn(CLOCK_PROCESS_CPUTIME_ID, atol(words[2]));
        return 0;
    }
    if (!strcmp(what, "touch")) {
        long bytes = atol(words[2]);
        char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(memory, 'x', bytes);
        say("ready", 0);
    } else if (!strcmp(what, "burn")) {
        await_go();
        long before = used();
        burn(CLOCK_MONOTONIC, atol(words[2]));
        say("used", used() - before);
    } else if (!strcmp(what, "write") && count > 3) {
        await_go();
        say("wrote", write_directly(words[2], atol(words[3])));
    } else {
        return 2;
    }
    for (;;)
        pause();
}
