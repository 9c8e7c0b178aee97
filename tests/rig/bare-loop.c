/*
 * Reads dirty bits with nothing but the system calls, to compare with.
 *
 * Usage: bare-loop PCI-ADDRESS MEMORY TIMES, of an iommu-testdev that is bound to vfio-pci. MEMORY bytes of memory are mapped TIMES
 * times, one after the other from 4 GiB on. The commands are in bare.h.
 */
#include "bare.h"

/* What the device writes at a time when it writes everything. */
#define CHUNK (32u << 20)

static void start(struct rig *rig, uint64_t bytes)
{
	(void)bytes;
	rig_set_tracking(rig, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
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

static void read_bits(struct rig *rig, uint64_t bytes, uint64_t *bitmap)
{
	rig_read_dirty(rig, IOVA, bytes, 0, bitmap);
}

int main(int argc, char **argv)
{
	const struct bare loop = {
		.usage = "bare-loop PCI-ADDRESS MEMORY TIMES",
		.attach = rig_attach,
		.start = start,
		.write = write_pages,
		.read = read_bits,
	};

	return bare_main(&loop, argc, argv);
}
