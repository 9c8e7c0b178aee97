/*
 * What the bare programs share, with which the trackers are compared: commands by standard input, and the measuring.
 *
 *   write PAGES   the device writes so many pages, as far from each other as they can be
 *   read          reads and clears what is dirty of everything: the time that takes in nanoseconds, and the number of dirty pages
 *
 * Each command is answered by a line.
 */
#ifndef BARE_H
#define BARE_H

#include "rig.h"

#include <time.h>

/* Above all that the machine keeps for interrupts. */
#define IOVA (1ull << 32)

/* One of the programs. What it reads and writes is so many bytes from IOVA on. */
struct bare {
	const char *usage;
	/* Attaches the device to its address space, which has no mappings yet. */
	void (*attach)(struct rig *rig);
	void (*start)(struct rig *rig, uint64_t bytes);
	void (*write)(struct rig *rig, uint64_t bytes, uint64_t pages);
	void (*read)(struct rig *rig, uint64_t bytes, uint64_t *bitmap);
};

static inline uint64_t bare_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static inline void bare_read(const struct bare *bare, struct rig *rig, uint64_t bytes, uint64_t *bitmap)
{
	uint64_t words = bytes / PAGE_BYTES / 64;
	uint64_t begin, end, word, dirty = 0;

	begin = bare_now();
	memset(bitmap, 0, words * sizeof(*bitmap));
	bare->read(rig, bytes, bitmap);
	end = bare_now();
	for (word = 0; word < words; word++)
		dirty += __builtin_popcountll(bitmap[word]);
	printf("%" PRIu64 " %" PRIu64 "\n", end - begin, dirty);
}

static inline int bare_main(const struct bare *bare, int argc, char **argv)
{
	uint64_t memory, times, bytes, at, *bitmap;
	struct rig rig = { 0 };
	char line[64];

	if (argc != 4) {
		fprintf(stderr, "usage: %s\n", bare->usage);
		return 2;
	}
	memory = strtoull(argv[2], NULL, 0);
	times = strtoull(argv[3], NULL, 0);
	bytes = memory * times;
	rig_bind(&rig, argv[1]);
	rig_make_space(&rig, memory);
	bare->attach(&rig);
	for (at = 0; at < times; at++)
		rig_map(&rig, IOVA + at * memory);
	rig_enable_device(&rig);
	bare->start(&rig, bytes);
	bitmap = calloc(bytes / PAGE_BYTES / 64, sizeof(*bitmap));
	if (!bitmap)
		fail("calloc");

	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "read\n")) {
			bare_read(bare, &rig, bytes, bitmap);
		} else if (!strncmp(line, "write ", 6)) {
			bare->write(&rig, bytes, strtoull(line + 6, NULL, 0));
			printf("written\n");
		} else {
			die("no such command");
		}
		fflush(stdout);
	}
	return 0;
}

#endif
