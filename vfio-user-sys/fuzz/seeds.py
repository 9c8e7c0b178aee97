#!/usr/bin/env python3
"""Writes corpus/ (seeds for the fuzzer) and regress/ (one input for each mend that an input can show).

The format of an input is described in harness.h. A file in regress/ starts with the number of its patch.
"""

import pathlib
import struct

HERE = pathlib.Path(__file__).parent
EXPRESS, NEGOTIATES, PLAIN_CONFIG = 1, 2, 4
BAR0, BAR2, BAR4, CONFIG = 0, 2, 4, 7
SMUGGLED = 0xDEAD


def raw(data, fds=0):
    return struct.pack("<BH", 0 | fds << 4, len(data)) + data


def message(cmd, payload=b"", fds=0, flags=0):
    return struct.pack("<BHBH", 1 | fds << 4, cmd, flags, len(payload)) + payload


def read(region, offset, count):
    return struct.pack("<BBHHB", 2, region, offset, count, 0)


def write(region, offset, data):
    return struct.pack("<BBHHB", 2, region, offset, len(data), 1) + data


def header(cmd, size, msg_id=1, flags=0):
    return struct.pack("<HHIII", msg_id, cmd, size, flags, 0)


def version(json):
    payload = struct.pack("<HH", 0, 2) + json.encode() + b"\0"
    return message(1, payload)


def region_info(index, argsz):
    return message(5, struct.pack("<IIIIQQ", argsz, 0, index, 0, 0, 0))


def save(folder, name, *records, device=0):
    path = HERE / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes([device]) + b"".join(records))


def corpus():
    info = message(4, struct.pack("<IIII", 16, 0, 0, 0))
    regions = b"".join(region_info(i, argsz) for i in range(9) for argsz in (32, 40, 80))
    save("corpus", "probe", info, regions)
    save("corpus", "config-read", read(CONFIG, 0, 256), *(read(CONFIG, 4 * i, 4) for i in range(64)))
    save("corpus", "config-read-express", read(CONFIG, 0, 4096), read(CONFIG, 0x100, 44), device=EXPRESS)
    save("corpus", "config-plain", read(CONFIG, 0, 256), write(CONFIG, 0x6C, b"A" * 64), device=PLAIN_CONFIG)
    save("corpus", "bars", *(write(CONFIG, 0x10 + 4 * i, b"\xff" * 4) + read(CONFIG, 0x10 + 4 * i, 4) for i in range(6)))
    save("corpus", "command", write(CONFIG, 4, b"\x06\x04"), write(CONFIG, 4, b"\0"), write(CONFIG, 0x30, b"\xff" * 4))
    save("corpus", "capabilities", *(write(CONFIG, off, b"\x01\x00") for off in range(0x40, 0xB0, 2)))
    save("corpus", "capabilities-express", *(write(CONFIG, off, b"\x00\x80") for off in range(0xAC, 0xE8, 2)),
         *(write(CONFIG, off, b"abcd") for off in range(0x100, 0x130, 4)), device=EXPRESS)
    save("corpus", "bar-access", write(BAR0, 0, b"x" * 8), read(BAR0, 0x1FF8, 8), read(BAR0, 0x1FF8, 9), read(BAR4, 0, 0x2000),
         read(BAR2, 0, 4), read(1, 0, 0), read(200, 0, 4))
    save("corpus", "io-fds", *(message(6, struct.pack("<IIII", argsz, 0, 0, 0)) for argsz in (8, 16, 64, 128)))
    save("corpus", "hooked", *(message(cmd, bytes([way]) * 24, fds) for cmd in (2, 3, 8, 16, 17, 18) for way in range(5) for fds in (0, 2)),
         message(13), message(19, b"\0" * 24), message(15, b"\0" * 40))
    save("corpus", "no-reply", message(4, struct.pack("<IIII", 16, 0, 0, 0), flags=0x10), message(99, b"x", flags=0x10))
    save("corpus", "pieces", raw(header(4, 32)[:5]), raw(header(4, 32)[5:] + b"\x10\0"), raw(b"\0" * 14), raw(b"\1"))
    save("corpus", "negotiation", version('{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true},"migration":{"pgsize":4096}}}'),
         message(13), device=NEGOTIATES)
    save("corpus", "negotiation-bare", message(1, struct.pack("<HH", 0, 1)), message(13), device=NEGOTIATES)
    save("corpus", "negotiation-refused", version('{"refuse":true}'), device=NEGOTIATES)
    save("corpus", "negotiation-deep", version("[" * 1000), device=NEGOTIATES)
    save("corpus", "negotiation-numbers", version('{"capabilities":{"max_msg_fds":-1,"max_data_xfer_size":1e999}}'), device=NEGOTIATES)


def regress():
    smuggled = header(SMUGGLED, 20) + b"\0" * 4
    save("regress", "0004-descriptors-of-half-a-header", raw(b"\0" * 8, fds=3))
    # The kernel ends a read behind a file descriptor: the rest of the payload must not be taken for a message.
    save("regress", "0005-payload-in-pieces", raw(header(4, 16 + 4 + len(smuggled))), raw(b"\0" * 4, fds=1), raw(smuggled))
    save("regress", "0006-oversized", raw(header(18, 1 << 24) + smuggled))
    save("regress", "0006-undersized", raw(header(18, 3) + smuggled))
    save("regress", "0008-descriptors-of-a-message", message(2, b"\4" + b"\0" * 31, fds=2))
    save("regress", "0009-failed-read-of-a-bar", read(BAR0, 0x17, 4))
    save("regress", "0010-number-of-33-bits", version('{"capabilities":{"max_msg_fds":4294967297}}'), device=NEGOTIATES)
    save("regress", "0011-one-byte-of-a-bar", write(CONFIG, 0x10, b"\xff"))
    save("regress", "0011-one-byte-of-the-command", write(CONFIG, 4, b"\x02"))
    # The MSI capability follows the 8 bytes of power management at 0x40.
    save("regress", "0012-past-the-msi-capability", write(CONFIG, 0x48 + 20, b"A" * 24))
    save("regress", "0012-past-the-msix-capability", write(CONFIG, 0x60 + 8, b"A" * 12))
    save("regress", "0013-through-a-read-only-capability", write(CONFIG, 0x8C, b"A" * 0x18))
    save("regress", "0014-callback-without-progress", read(CONFIG, 0xF0, 4))
    save("regress", "0015-write-to-a-read-only-region", write(BAR2, 0, b"A"))
    save("regress", "0016-empty-access", read(BAR0, 0, 0))
    save("regress", "0017-failure-without-errno", write(BAR0, 0x13, b"AB"))
    save("regress", "0018-high-msi-address", write(CONFIG, 0x48 + 4, struct.pack("<I", 0xFEE00000)))


if __name__ == "__main__":
    corpus()
    regress()
