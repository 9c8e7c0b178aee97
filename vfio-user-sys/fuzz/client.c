/*
 * The client: makes a stream out of an input, and checks the replies' stream.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "harness.h"

#define MAX_FDS 15
#define MAX_PAYLOAD 0x10000

/* What is left of the input. */
struct reader {
    const uint8_t *at;
    size_t left;
};

static const uint8_t *
take(struct reader *in, size_t count)
{
    const uint8_t *at = in->at;

    if (in->left < count) {
        return NULL;
    }
    in->at += count;
    in->left -= count;
    return at;
}

static bool
take_u8(struct reader *in, uint8_t *value)
{
    const uint8_t *at = take(in, 1);

    if (at != NULL) {
        *value = at[0];
    }
    return at != NULL;
}

static bool
take_u16(struct reader *in, uint16_t *value)
{
    const uint8_t *at = take(in, 2);

    if (at != NULL) {
        *value = (uint16_t)(at[0] | at[1] << 8);
    }
    return at != NULL;
}

/* Sends bytes and copies of stderr's file descriptor. */
static bool
send_bytes(int sock, const void *data, size_t size, unsigned int nr_fds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    } control = { 0 };
    struct iovec iov = { .iov_base = (void *)data, .iov_len = size };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

    if (size == 0) {
        return true;
    }
    if (nr_fds > 0) {
        msg.msg_control = control.space;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
        for (unsigned int i = 0; i < nr_fds; i++) {
            ((int *)CMSG_DATA(cmsg))[i] = STDERR_FILENO;
        }
    }
    return sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

static bool
send_message(int sock, uint16_t cmd, uint8_t flags, const void *payload, size_t size, unsigned int nr_fds)
{
    static uint16_t msg_id;
    static uint8_t buf[sizeof(struct vfio_user_header) + MAX_PAYLOAD + 64];
    struct vfio_user_header hdr = {
        .msg_id = msg_id++,
        .cmd = cmd,
        .msg_size = (uint32_t)(sizeof(hdr) + size),
        .flags = flags
    };

    memcpy(buf, &hdr, sizeof(hdr));
    memcpy(buf + sizeof(hdr), payload, size);
    return send_bytes(sock, buf, sizeof(hdr) + size, nr_fds);
}

static bool
send_version(int sock)
{
    static const char json[] = "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576}}";
    uint8_t payload[sizeof(struct vfio_user_version) + sizeof(json)];
    struct vfio_user_version version = { .major = LIB_VFIO_USER_MAJOR, .minor = LIB_VFIO_USER_MINOR };

    memcpy(payload, &version, sizeof(version));
    memcpy(payload + sizeof(version), json, sizeof(json));
    return send_message(sock, VFIO_USER_VERSION, 0, payload, sizeof(payload), 0);
}

static bool
send_raw(int sock, struct reader *in, unsigned int nr_fds)
{
    const uint8_t *data;
    uint16_t size;

    return take_u16(in, &size) && (data = take(in, size)) != NULL && send_bytes(sock, data, size, nr_fds);
}

static bool
send_any_message(int sock, struct reader *in, unsigned int nr_fds)
{
    const uint8_t *data;
    uint16_t cmd, size;
    uint8_t flags;

    return take_u16(in, &cmd) && take_u8(in, &flags) && take_u16(in, &size) &&
           (data = take(in, size)) != NULL && send_message(sock, cmd, flags, data, size, nr_fds);
}

static bool
send_access(int sock, struct reader *in, unsigned int nr_fds)
{
    static uint8_t payload[sizeof(struct vfio_user_region_access) + MAX_PAYLOAD];
    struct vfio_user_region_access access = { 0 };
    size_t size = sizeof(access);
    const uint8_t *data;
    uint16_t offset, count;
    uint8_t region, is_write;

    if (!take_u8(in, &region) || !take_u16(in, &offset) || !take_u16(in, &count) || !take_u8(in, &is_write)) {
        return false;
    }
    access.region = region;
    access.offset = offset;
    access.count = count;
    memcpy(payload, &access, sizeof(access));
    if (is_write & 1) {
        if ((data = take(in, count)) == NULL) {
            return false;
        }
        memcpy(payload + size, data, count);
        size += count;
    }
    return send_message(sock, is_write & 1 ? VFIO_USER_REGION_WRITE : VFIO_USER_REGION_READ, 0, payload, size, nr_fds);
}

void
client_send(int sock, const uint8_t *input, size_t size)
{
    struct reader in = { .at = input, .left = size };
    uint8_t kind;
    bool sent;

    if (!take_u8(&in, &kind) || (!(kind & INPUT_NEGOTIATES) && !send_version(sock))) {
        return;
    }
    do {
        if (!take_u8(&in, &kind)) {
            return;
        }
        switch (kind & 0xf) {
        case RECORD_RAW:
            sent = send_raw(sock, &in, kind >> 4);
            break;
        case RECORD_MESSAGE:
            sent = send_any_message(sock, &in, kind >> 4);
            break;
        case RECORD_ACCESS:
            sent = send_access(sock, &in, kind >> 4);
            break;
        default:
            sent = false;
        }
    } while (sent);
}

static void
check_access_reply(uint16_t cmd, const uint8_t *payload, size_t size)
{
    struct vfio_user_region_access access;

    if (size < sizeof(access)) {
        fail("the reply to a region access is too short");
    }
    memcpy(&access, payload, sizeof(access));
    if (size != sizeof(access) + (cmd == VFIO_USER_REGION_READ ? access.count : 0)) {
        fail("the reply to a region access has another size than it says");
    }
    if (access.region == VFU_PCI_DEV_BAR0_REGION_IDX && access.offset == SILENT_FAILURE_OFFSET && access.count > 0) {
        fail("a failed access was reported as done");
    }
}

static void
check_reply(const struct vfio_user_header *hdr, const uint8_t *payload, size_t size)
{
    if ((hdr->flags & VFIO_USER_F_TYPE_MASK) != VFIO_USER_F_TYPE_REPLY) {
        fail("a reply is not marked as one");
    }
    if (hdr->flags & VFIO_USER_F_ERROR) {
        if (size != 0 || hdr->error_no == 0) {
            fail("an error reply has a payload, or no error");
        }
        return;
    }
    if (hdr->cmd == VFIO_USER_REGION_READ || hdr->cmd == VFIO_USER_REGION_WRITE) {
        check_access_reply(hdr->cmd, payload, size);
    }
}

/* Everything there is to read. File descriptors that come along are thrown away by the kernel. */
static size_t
read_all(int sock, uint8_t **data)
{
    size_t size = 0, room = 1 << 16;
    ssize_t got;

    *data = malloc(room);
    while ((got = recv(sock, *data + size, room - size, MSG_DONTWAIT)) > 0) {
        size += (size_t)got;
        if (size == room) {
            room *= 2;
            *data = realloc(*data, room);
        }
    }
    return size;
}

void
client_check_replies(int sock)
{
    struct vfio_user_header hdr;
    uint8_t *data;
    size_t size = read_all(sock, &data);
    size_t at = 0;

    while (size - at >= sizeof(hdr)) {
        memcpy(&hdr, data + at, sizeof(hdr));
        if (hdr.msg_size < sizeof(hdr)) {
            fail("a reply is smaller than its header");
        }
        /* The last one may be cut off, by the deadline for sending. */
        if (hdr.msg_size > size - at) {
            break;
        }
        check_reply(&hdr, data + at + sizeof(hdr), hdr.msg_size - sizeof(hdr));
        at += hdr.msg_size;
    }
    free(data);
}
