/*
 * The device: BARs with and without mappable parts, all capabilities, and callbacks that check what they are given.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"

#define BAR_SIZE 0x2000
#define READONLY_BAR VFU_PCI_DEV_BAR2_REGION_IDX

/* Two vendor capabilities, the second of which is added first. */
#define READONLY_CAP 0x90
#define LATE_CAP 0xa0
#define VENDOR_CAP_SIZE 8

/* Bytes of the config space behind all capabilities where the callback does nothing. */
#define STUCK_OFFSET 0xf0

/* The negative controls build this with the part of the series that comes before a mend, which may not have it. */
int vfu_setup_deadlines(vfu_ctx_t *, unsigned int, unsigned int) __attribute__((weak));

static volatile uint8_t sink;

/* Reads or writes every byte, so that a sanitizer sees a buffer that is too short. */
static void
touch(char *buf, size_t count, bool is_write)
{
    if (!is_write) {
        memset(buf, 0x5a, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        sink ^= (uint8_t)buf[i];
    }
}

static ssize_t
access_bar(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write)
{
    (void)ctx;
    if (count == 0 || offset < 0 || (size_t)offset + count > BAR_SIZE) {
        fail("access out of bounds");
    }
    if (offset == FAILURE_OFFSET || offset == SILENT_FAILURE_OFFSET) {
        errno = offset == FAILURE_OFFSET ? ENXIO : 0;
        return -1;
    }
    touch(buf, count, is_write);
    return (ssize_t)count;
}

static ssize_t
access_readonly_bar(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write)
{
    if (is_write) {
        fail("a write got to a read-only region");
    }
    return access_bar(ctx, buf, count, offset, is_write);
}

static ssize_t
access_config(vfu_ctx_t *ctx, char *buf, size_t count, loff_t offset, bool is_write)
{
    (void)ctx;
    if (is_write && offset < READONLY_CAP + VENDOR_CAP_SIZE && offset + (loff_t)count > READONLY_CAP) {
        fail("a write got to a read-only capability");
    }
    if (offset == STUCK_OFFSET) {
        return 0;
    }
    touch(buf, count, is_write);
    return (ssize_t)count;
}

static int
on_reset(vfu_ctx_t *ctx, vfu_reset_type_t type)
{
    (void)ctx;
    (void)type;
    return 0;
}

static void
on_log(vfu_ctx_t *ctx, int level, const char *message)
{
    (void)ctx;
    (void)level;
    sink ^= (uint8_t)strlen(message);
}

static int
on_version(vfu_ctx_t *ctx, const char *client_json, char **capabilities)
{
    static const char caps[] = "{\"mig_data_size\":true,\"max_msg_fds\":16}";

    (void)ctx;
    if (client_json == NULL) {
        return 0;
    }
    if (strict && strstr(client_json, "4294967297") != NULL) {
        fail("a capability that is out of range was accepted");
    }
    if (strstr(client_json, "refuse") != NULL) {
        errno = EBUSY;
        return -1;
    }
    *capabilities = vfu_msg_alloc(sizeof(caps));
    memcpy(*capabilities, caps, sizeof(caps));
    return 0;
}

static void
take_fds(vfu_msg_in_t *in)
{
    for (size_t i = 0; i < in->nr_fds; i++) {
        if (in->fds[i] != -1) {
            close(in->fds[i]);
        }
        in->fds[i] = -1;
    }
}

/* What to do with a message is chosen by its first byte. */
static int
answer(vfu_msg_in_t *in, vfu_msg_out_t *out)
{
    switch (in->len > 0 ? *(uint8_t *)in->data % 5 : 0) {
    case 0:
        return VFU_MSG_HANDLED;
    case 1:
        out->data = vfu_msg_alloc(in->len);
        out->len = in->len;
        memcpy(out->data, in->data, in->len);
        return VFU_MSG_HANDLED;
    case 2:
        out->data = vfu_msg_alloc(64);
        out->len = 64;
        errno = EINVAL;
        return -1;
    case 3:
        out->fds = vfu_msg_alloc(sizeof(int));
        out->fds[0] = STDERR_FILENO;
        out->nr_fds = 1;
        return VFU_MSG_HANDLED;
    default:
        take_fds(in);
        return VFU_MSG_HANDLED;
    }
}

static int
on_message(vfu_ctx_t *ctx, const struct vfio_user_header *hdr, vfu_msg_in_t *in, vfu_msg_out_t *out)
{
    (void)ctx;
    for (size_t i = 0; i < in->nr_fds; i++) {
        if (!(fcntl(in->fds[i], F_GETFD) & FD_CLOEXEC)) {
            fail("a file descriptor would survive exec");
        }
    }
    touch(in->data, in->len, true);

    switch (hdr->cmd) {
    case VFIO_USER_DMA_MAP:
    case VFIO_USER_DMA_UNMAP:
    case VFIO_USER_DEVICE_GET_IRQ_INFO:
    case VFIO_USER_DEVICE_SET_IRQS:
    case VFIO_USER_DEVICE_RESET:
    case VFIO_USER_DEVICE_FEATURE:
    case VFIO_USER_MIG_DATA_READ:
    case VFIO_USER_MIG_DATA_WRITE:
        return answer(in, out);
    case SMUGGLED_COMMAND:
        if (strict) {
            fail("a payload was executed as a message");
        }
        return VFU_MSG_PASS;
    default:
        return VFU_MSG_PASS;
    }
}

static void
must(bool done, const char *what)
{
    if (!done) {
        fail(what);
    }
}

static void
add_cap(vfu_ctx_t *ctx, size_t pos, int flags, void *cap)
{
    must(vfu_pci_add_capability(ctx, pos, flags, cap) >= 0, "cannot add a capability");
}

static void
add_capabilities(vfu_ctx_t *ctx, bool express)
{
    struct pmcap pm = { .hdr.id = PCI_CAP_ID_PM };
    struct msicap msi = { .hdr.id = PCI_CAP_ID_MSI, .mc = { .mmc = 2, .c64 = 1, .pvm = 1 } };
    struct msixcap msix = { .hdr.id = PCI_CAP_ID_MSIX, .mxc.ts = 3 };
    /* Their headers end in flexible arrays: id, next, size; and id, version and next, vendor's id, length in its upper bits. */
    uint8_t vendor[VENDOR_CAP_SIZE] = { PCI_CAP_ID_VNDR, 0, VENDOR_CAP_SIZE };

    /* Before the others: behind a late one there would be no room for them. */
    add_cap(ctx, 0, 0, &pm);
    add_cap(ctx, 0, 0, &msi);
    add_cap(ctx, 0, 0, &msix);
    add_cap(ctx, LATE_CAP, 0, vendor);
    add_cap(ctx, READONLY_CAP, VFU_CAP_FLAG_READONLY, vendor);

    if (express) {
        struct pxcap px = { .hdr.id = PCI_CAP_ID_EXP, .pxcaps.ver = 2, .pxdcap.flrc = 1 };
        struct dsncap dsn = { .hdr.id = PCI_EXT_CAP_ID_DSN };
        uint32_t ext[7] = { PCI_EXT_CAP_ID_VNDR, sizeof(ext) << 20 };
        add_cap(ctx, 0xac, 0, &px);
        add_cap(ctx, 0, VFU_CAP_FLAG_EXTENDED, &dsn);
        add_cap(ctx, 0, VFU_CAP_FLAG_EXTENDED, ext);
    }
}

static void
add_regions(vfu_ctx_t *ctx, bool express, vfu_region_access_cb_t *config_cb)
{
    static int doorbells = -1;
    struct iovec mappable = { .iov_base = (void *)0x1000, .iov_len = 0x1000 };
    int config_size = express ? PCI_CFG_SPACE_EXP_SIZE : PCI_CFG_SPACE_SIZE;

    /* One for all inputs: it stays with the device. */
    if (doorbells == -1) {
        doorbells = memfd_create("doorbells", MFD_CLOEXEC);
        must(doorbells >= 0 && ftruncate(doorbells, BAR_SIZE) == 0, "cannot create a memfd");
    }

    must(vfu_setup_region(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, BAR_SIZE, access_bar,
                          VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM, &mappable, 1, doorbells, 0) == 0 &&
         vfu_setup_region(ctx, READONLY_BAR, BAR_SIZE, access_readonly_bar,
                          VFU_REGION_FLAG_READ | VFU_REGION_FLAG_MEM, NULL, 0, -1, 0) == 0 &&
         vfu_setup_region(ctx, VFU_PCI_DEV_BAR4_REGION_IDX, BAR_SIZE, access_bar,
                          VFU_REGION_FLAG_RW | VFU_REGION_FLAG_MEM | VFU_REGION_FLAG_64_BITS,
                          NULL, 0, -1, 0) == 0 &&
         vfu_setup_region(ctx, VFU_PCI_DEV_CFG_REGION_IDX, config_size, config_cb,
                          VFU_REGION_FLAG_RW, NULL, 0, -1, 0) == 0,
         "cannot set up a region");
    must(vfu_create_ioeventfd(ctx, VFU_PCI_DEV_BAR0_REGION_IDX, doorbells, 0x1000, 4, 0, 0, -1, 0) == 0,
         "cannot add an ioeventfd");
}

vfu_ctx_t *
device_create(uint8_t kind)
{
    bool express = kind & INPUT_EXPRESS;
    vfu_ctx_t *ctx = vfu_create_ctx(VFU_TRANS_SOCK, NULL, LIBVFIO_USER_FLAG_ATTACH_FD, NULL, VFU_DEV_TYPE_PCI);

    must(ctx != NULL, "cannot create a context");
    must(vfu_setup_log(ctx, on_log, LOG_DEBUG) == 0, "cannot set up the log");
    must(vfu_pci_init(ctx, express ? VFU_PCI_TYPE_EXPRESS : VFU_PCI_TYPE_CONVENTIONAL,
                      PCI_HEADER_TYPE_NORMAL, 0) == 0, "cannot set up PCI");
    vfu_pci_set_id(ctx, 0x1234, 0x7074, 0x1234, 0x7074);
    vfu_pci_set_class(ctx, 8, 1, 0);
    add_regions(ctx, express, kind & INPUT_PLAIN_CONFIG ? NULL : access_config);
    add_capabilities(ctx, express);
    must(vfu_setup_device_nr_irqs(ctx, VFU_DEV_INTX_IRQ, 1) == 0 &&
         vfu_setup_device_nr_irqs(ctx, VFU_DEV_MSIX_IRQ, 4) == 0, "cannot set up interrupts");
    must(vfu_setup_device_reset_cb(ctx, on_reset) == 0 && vfu_setup_msg_cb(ctx, on_message) == 0 &&
         vfu_setup_version_cb(ctx, on_version) == 0 &&
         (vfu_setup_deadlines == NULL || vfu_setup_deadlines(ctx, 1000, 100) == 0),
         "cannot set up callbacks");
    must(vfu_realize_ctx(ctx) == 0, "cannot realize the context");
    return ctx;
}
