/*
 * Checks a rig: Linux reports, through iommufd, exactly the pages that a device has written.
 *
 * Usage: smoke PCI-ADDRESS, of an iommu-testdev that is bound to vfio-pci. Nothing but system calls, so that what fails here is the
 * rig's fault and not that of a tracker.
 */
#include "rig.h"

#define PAGES 64u
#define IOVA 0x100000000ull
#define ROUNDS 500

/* The bits of the PAGES pages. */
typedef uint64_t pages_t;

static pages_t page(unsigned int index)
{
	return 1ull << index;
}

static void expect(pages_t found, pages_t wanted, const char *what)
{
	if (found == wanted) {
		printf("ok: %s\n", what);
		return;
	}
	fprintf(stderr, "smoke: %s: reported %016" PRIx64 ", written %016" PRIx64 "\n", what, found, wanted);
	exit(1);
}

/* What is reported of COUNT pages from FIRST on. */
static pages_t report(struct rig *rig, unsigned int first, unsigned int count, uint32_t flags)
{
	pages_t bits = 0;

	rig_read_dirty(rig, IOVA + first * PAGE_BYTES, count * PAGE_BYTES, flags, &bits);
	return bits << first;
}

static pages_t report_all(struct rig *rig)
{
	return report(rig, 0, PAGES, 0);
}

/* Has the device write four bytes into the page. */
static void dma(struct rig *rig, unsigned int index)
{
	volatile uint32_t *word = (volatile uint32_t *)(rig->memory + index * PAGE_BYTES);

	*word = 0;
	rig_write(rig, IOVA + index * PAGE_BYTES, sizeof(*word));
	if (*word != TESTDEV_WRITTEN)
		die("a DMA write has not arrived");
}

static void dma_to(struct rig *rig, pages_t pages)
{
	unsigned int index;

	for (index = 0; index < PAGES; index++) {
		if (pages & page(index))
			dma(rig, index);
	}
}

static void check_reports(struct rig *rig)
{
	pages_t some = page(0) | page(3) | page(4) | page(63);

	dma_to(rig, page(9));
	rig_set_tracking(rig, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
	expect(report_all(rig), 0, "nothing is dirty when tracking begins");

	dma_to(rig, some);
	expect(report_all(rig), some, "the pages written are reported, and no others");
	expect(report_all(rig), 0, "a report clears");
	dma_to(rig, some);
	expect(report_all(rig), some, "the same pages are reported when they are written again");

	dma_to(rig, page(7));
	expect(report(rig, 0, PAGES, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR), page(7), "a report can leave the bits");
	expect(report_all(rig), page(7), "bits that were left are reported again");

	dma_to(rig, page(1) | page(40));
	expect(report(rig, 32, 32, 0), page(40), "a report of a part has the part's pages");
	expect(report_all(rig), page(1), "and leaves those of the others");
}

/* Reads and writes alternate; every report has exactly what was written since the one before. */
static void check_many_reports(struct rig *rig)
{
	uint64_t random = 88172645463325252ull;
	int round;

	for (round = 0; round < ROUNDS; round++) {
		pages_t found, written = 0;
		int writes;

		for (writes = 0; writes < 8; writes++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			written |= page(random % PAGES);
		}
		dma_to(rig, written);
		found = report_all(rig);
		if (found != written)
			expect(found, written, "one of many reports");
	}
	printf("ok: %d reports have what was written before each\n", ROUNDS);
}

int main(int argc, char **argv)
{
	struct rig rig = { 0 };

	if (argc != 2) {
		fprintf(stderr, "usage: smoke PCI-ADDRESS\n");
		return 2;
	}
	rig_bind(&rig, argv[1]);
	rig_make_space(&rig, PAGES * PAGE_BYTES);
	rig_map(&rig, IOVA);
	rig_attach(&rig);
	rig_enable_device(&rig);
	check_reports(&rig);
	check_many_reports(&rig);
	rig_set_tracking(&rig, 0);
	return 0;
}
