/*
 * A device on libvfio-user and a client that sends it anything: what the fuzzer and the replay have in common.
 *
 * An input is a byte that chooses the device and the kind of client, and records. Each record is a byte (low half: kind, upper half:
 * number of file descriptors to send along) and, little-endian:
 *
 *   RAW      u16 length, bytes         sent as they are
 *   MESSAGE  u16 command, u8 flags, u16 length, bytes
 *   ACCESS   u8 region, u16 offset, u16 count, u8 write, and for a write count bytes
 */
#ifndef PAGETRAIL_HARNESS_H
#define PAGETRAIL_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libvfio-user.h"

enum record_kind { RECORD_RAW = 0, RECORD_MESSAGE = 1, RECORD_ACCESS = 2 };

/* Bits of an input's first byte. */
#define INPUT_EXPRESS 0x01      /* PCI Express, with extended capabilities */
#define INPUT_NEGOTIATES 0x02   /* the input brings its own VERSION */
#define INPUT_PLAIN_CONFIG 0x04 /* the device has no callback for the config space */

/* A command that no input of the replay sends except as the payload of another message. */
#define SMUGGLED_COMMAND 0xdead
/* Accesses of BAR 0 at these offsets fail, with an errno and without. */
#define FAILURE_OFFSET 0x17
#define SILENT_FAILURE_OFFSET 0x13

/*
 * Set for the replay: its inputs hide commands and capabilities that must never get to the device. A fuzzer may find inputs that
 * send them openly.
 */
extern bool strict;

/* Says what is wrong, and aborts. */
void fail(const char *what) __attribute__((noreturn));

/* device.c: a device that answers as pagetrail's do, chosen by an input's first byte. */
vfu_ctx_t *device_create(uint8_t kind);

/* client.c: sends an input's records to a socket that does not block, as far as they fit in. */
void client_send(int sock, const uint8_t *input, size_t size);
/* Checks what came back. */
void client_check_replies(int sock);

/* target.c: runs one input. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

#endif
