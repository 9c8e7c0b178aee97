/*
 * Reads dirty bits with nothing but the system calls, to compare with.
 *
 * Usage: bare-loop PCI-ADDRESS MEMORY TIMES, of an iommu-testdev that is bound to vfio-pci. MEMORY bytes of memory are mapped TIMES
 * times, one after the other from 4 GiB on. Standard input has commands, each of which is answered by a line:
 *
 *   write PAGES   the device writes so many pages, as far from each other as they can be
 *   read          reads and clears the bits of everything: the time that takes in nanoseconds, and the number of dirty pages
 */
#include "rig.h"

#include <time.h>

/* What the device writes at a time when it writes everything. */
#define CHUNK (32u << 20)
/* Above all that the machine keeps for interrupts. */
#define IOVA (1ull << 32)

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static void write_pages(struct rig *rig, uint64_t bytes, uint64_t pages)
{
	uint64_t all = bytes / PAGE_BYTES;
	uint64_t page;

	if (pages >= all) {
		for (uint64_t at = 0; at < bytes; at += CHUNK)
			rig_write(rig, IOVA + at, CHUNK);
		return;
	}
	for (page = 0; page < pages; page++)
		rig_write(rig, IOVA + page * (all / pages) * PAGE_BYTES, sizeof(uint32_t));
}

static void read_all(struct rig *rig, uint64_t bytes, uint64_t *bitmap)
{
	uint64_t words = bytes / PAGE_BYTES / 64;
	uint64_t begin, end, word, dirty = 0;

	begin = now();
	memset(bitmap, 0, words * sizeof(*bitmap));
	rig_read_dirty(rig, IOVA, bytes, 0, bitmap);
	end = now();
	for (word = 0; word < words; word++)
		dirty += __builtin_popcountll(bitmap[word]);
	printf("%" PRIu64 " %" PRIu64 "\n", end - begin, dirty);
}

int main(int argc, char **argv)
{
	uint64_t memory, times, at, *bitmap;
	struct rig rig = { 0 };
	char line[64];

	if (argc != 4) {
		fprintf(stderr, "usage: bare-loop PCI-ADDRESS MEMORY TIMES\n");
		return 2;
	}
	memory = strtoull(argv[2], NULL, 0);
	times = strtoull(argv[3], NULL, 0);
	rig_bind(&rig, argv[1]);
	rig_make_space(&rig, memory);
	rig_attach(&rig);
	for (at = 0; at < times; at++)
		rig_map(&rig, IOVA + at * memory);
	rig_enable_device(&rig);
	rig_set_tracking(&rig, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
	bitmap = calloc(memory * times / PAGE_BYTES / 64, sizeof(*bitmap));
	if (!bitmap)
		fail("calloc");

	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "read\n")) {
			read_all(&rig, memory * times, bitmap);
		} else if (!strncmp(line, "write ", 6)) {
			write_pages(&rig, memory * times, strtoull(line + 6, NULL, 0));
			printf("written\n");
		} else {
			die("no such command");
		}
		fflush(stdout);
	}
	return 0;
}
