/*
 * Runs one input: a connection from its beginning to its end.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

bool strict;

void
fail(const char *what)
{
    fprintf(stderr, "FAILED: %s\n", what);
    abort();
}

static unsigned int
count_open_fds(void)
{
    unsigned int count = 0;
    DIR *dir = opendir("/proc/self/fd");

    if (dir == NULL) {
        fail("cannot list open files");
    }
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

/* Room for the replies to all that fits into the other direction, where that is allowed. */
static void
enlarge(int sock)
{
    int size = 8 << 20;

    if (setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0) {
        (void)setsockopt(sock, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    }
}

static void
serve(vfu_ctx_t *ctx, int sock)
{
    if (vfu_attach_fd(ctx, sock) != 0) {
        return;
    }
    if (vfu_run_ctx(ctx) != -1 || errno != ENOTCONN) {
        fail("the end of the connection was not reported as ENOTCONN");
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static unsigned int open_fds;
    vfu_ctx_t *ctx;
    int socks[2];

    if (size == 0) {
        return 0;
    }
    ctx = device_create(input[0]);
    if (open_fds == 0) {
        open_fds = count_open_fds();
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) != 0) {
        fail("cannot create sockets");
    }
    enlarge(socks[0]);
    enlarge(socks[1]);

    client_send(socks[0], input, size);
    shutdown(socks[0], SHUT_WR);
    serve(ctx, socks[1]);
    vfu_destroy_ctx(ctx);
    client_check_replies(socks[0]);
    close(socks[0]);

    if (count_open_fds() != open_fds) {
        fail("file descriptors were leaked");
    }
    return 0;
}
