/*
 * Checks a rig: Linux reports, through iommufd, exactly the pages that a device has written.
 *
 * Usage: smoke PCI-ADDRESS, of an iommu-testdev that is bound to vfio-pci. Nothing but system calls, so that what fails here is the
 * rig's fault and not that of a tracker.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define PAGES 64u
#define IOVA 0x100000000ull
#define ROUNDS 500

/* iommu-testdev: QEMU's include/hw/misc/iommu-testdev.h */
#define TESTDEV_TRIGGER 0x00
#define TESTDEV_IOVA_LOW 0x04
#define TESTDEV_IOVA_HIGH 0x08
#define TESTDEV_LENGTH 0x0c
#define TESTDEV_RESULT 0x10
#define TESTDEV_DOORBELL 0x14
#define TESTDEV_ARM 1u
#define TESTDEV_WRITTEN 0x12345678u
#define TESTDEV_WRITE_FAILED 0xdead0002u

#define PCI_COMMAND 4
#define PCI_COMMAND_MEMORY_AND_MASTER 6

static void fail(const char *what)
{
	fprintf(stderr, "smoke: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int check(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

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

struct rig {
	int iommufd;
	int device;
	uint32_t device_id;
	uint32_t ioas;
	uint32_t hwpt;
	volatile uint32_t *registers;
	uint8_t *memory;
};

static int open_device(const char *address)
{
	char pattern[128], path[64];
	glob_t found;
	int device;

	snprintf(pattern, sizeof(pattern), "/sys/bus/pci/devices/%s/vfio-dev/vfio*", address);
	if (glob(pattern, 0, NULL, &found)) {
		fprintf(stderr, "smoke: %s is not bound to vfio-pci\n", address);
		exit(1);
	}
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	device = check(open(path, O_RDWR), path);
	return device;
}

static void bind_device(struct rig *rig, const char *address)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };

	rig->iommufd = check(open("/dev/iommu", O_RDWR), "/dev/iommu");
	rig->device = open_device(address);
	bind.iommufd = rig->iommufd;
	check(ioctl(rig->device, VFIO_DEVICE_BIND_IOMMUFD, &bind), "BIND_IOMMUFD");
	rig->device_id = bind.out_devid;
}

static void require_dirty_tracking(struct rig *rig)
{
	struct iommu_hw_info info = { .size = sizeof(info), .dev_id = rig->device_id };

	check(ioctl(rig->iommufd, IOMMU_GET_HW_INFO, &info), "GET_HW_INFO");
	if (!(info.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING)) {
		fprintf(stderr, "smoke: this IOMMU offers no dirty tracking\n");
		exit(1);
	}
	printf("ok: the IOMMU (type %u) offers dirty tracking\n", info.out_data_type);
}

/* Bits are as coarse as what maps the pages: 4 KiB, please. */
static void map_memory(struct rig *rig)
{
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };
	struct iommu_option small = { .size = sizeof(small), .option_id = IOMMU_OPTION_HUGE_PAGES, .op = IOMMU_OPTION_OP_SET };
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
		.length = PAGES * PAGE_BYTES,
		.iova = IOVA,
	};

	check(ioctl(rig->iommufd, IOMMU_IOAS_ALLOC, &ioas), "IOAS_ALLOC");
	rig->ioas = ioas.out_ioas_id;
	small.object_id = rig->ioas;
	check(ioctl(rig->iommufd, IOMMU_OPTION, &small), "OPTION_HUGE_PAGES");

	rig->memory = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (rig->memory == MAP_FAILED)
		fail("mmap");
	map.user_va = (uintptr_t)rig->memory;
	map.ioas_id = rig->ioas;
	check(ioctl(rig->iommufd, IOMMU_IOAS_MAP, &map), "IOAS_MAP");
}

static void attach(struct rig *rig)
{
	struct iommu_hwpt_alloc hwpt = {
		.size = sizeof(hwpt),
		.flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
		.dev_id = rig->device_id,
		.pt_id = rig->ioas,
	};
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };

	check(ioctl(rig->iommufd, IOMMU_HWPT_ALLOC, &hwpt), "HWPT_ALLOC with dirty tracking");
	rig->hwpt = hwpt.out_hwpt_id;
	attach.pt_id = rig->hwpt;
	check(ioctl(rig->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), "ATTACH_IOMMUFD_PT");
}

/* VFIO leaves a device without access to memory. */
static void enable_device(struct rig *rig)
{
	struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	struct vfio_region_info bar = { .argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX };
	uint16_t command = PCI_COMMAND_MEMORY_AND_MASTER;

	check(ioctl(rig->device, VFIO_DEVICE_GET_REGION_INFO, &config), "REGION_INFO of the configuration space");
	if (pwrite(rig->device, &command, sizeof(command), config.offset + PCI_COMMAND) != sizeof(command))
		fail("writing the command register");
	check(ioctl(rig->device, VFIO_DEVICE_GET_REGION_INFO, &bar), "REGION_INFO of BAR 0");
	rig->registers = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, rig->device, bar.offset);
	if (rig->registers == MAP_FAILED)
		fail("mapping BAR 0");
}

static void set_tracking(struct rig *rig, uint32_t flags)
{
	struct iommu_hwpt_set_dirty_tracking set = { .size = sizeof(set), .flags = flags, .hwpt_id = rig->hwpt };

	check(ioctl(rig->iommufd, IOMMU_HWPT_SET_DIRTY_TRACKING, &set), "SET_DIRTY_TRACKING");
}

/* What is reported of COUNT pages from FIRST on. */
static pages_t report(struct rig *rig, unsigned int first, unsigned int count, uint32_t flags)
{
	pages_t bits = 0;
	struct iommu_hwpt_get_dirty_bitmap get = {
		.size = sizeof(get),
		.hwpt_id = rig->hwpt,
		.flags = flags,
		.iova = IOVA + first * PAGE_BYTES,
		.length = count * PAGE_BYTES,
		.page_size = PAGE_BYTES,
		.data = (uintptr_t)&bits,
	};

	check(ioctl(rig->iommufd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get), "GET_DIRTY_BITMAP");
	return bits << first;
}

static pages_t report_all(struct rig *rig)
{
	return report(rig, 0, PAGES, 0);
}

static void testdev_set(struct rig *rig, unsigned int offset, uint32_t value)
{
	rig->registers[offset / sizeof(value)] = value;
}

/* Has the device write four bytes into the page; it has when this returns. */
static void dma(struct rig *rig, unsigned int index)
{
	uint64_t iova = IOVA + index * PAGE_BYTES;
	uint32_t *word = (uint32_t *)(rig->memory + index * PAGE_BYTES);

	*word = 0;
	testdev_set(rig, TESTDEV_IOVA_LOW, (uint32_t)iova);
	testdev_set(rig, TESTDEV_IOVA_HIGH, (uint32_t)(iova >> 32));
	testdev_set(rig, TESTDEV_LENGTH, sizeof(*word));
	testdev_set(rig, TESTDEV_DOORBELL, TESTDEV_ARM);
	(void)rig->registers[TESTDEV_TRIGGER / sizeof(uint32_t)];
	/* It compares with a physical address that we do not know, and finds something else: no matter. */
	if (rig->registers[TESTDEV_RESULT / sizeof(uint32_t)] == TESTDEV_WRITE_FAILED || *(volatile uint32_t *)word != TESTDEV_WRITTEN) {
		fprintf(stderr, "smoke: DMA to page %u has not arrived\n", index);
		exit(1);
	}
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
	set_tracking(rig, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
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
	bind_device(&rig, argv[1]);
	require_dirty_tracking(&rig);
	map_memory(&rig);
	attach(&rig);
	enable_device(&rig);
	check_reports(&rig);
	check_many_reports(&rig);
	set_tracking(&rig, 0);
	return 0;
}
