/*
 * A rig's iommu-testdev, driven by nothing but system calls.
 *
 * What fails here ends the program. Bits are for pages of 4 KiB, and so are the leaves of the page table.
 */
#ifndef RIG_H
#define RIG_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
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

struct rig {
	int iommufd;
	int device;
	uint32_t device_id;
	uint32_t ioas;
	uint32_t hwpt;
	volatile uint32_t *registers;
	uint8_t *memory;
	size_t memory_bytes;
};

static inline void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
	exit(1);
}

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

static inline int check(int result, const char *what)
{
	if (result < 0)
		fail(what);
	return result;
}

static inline int rig_open_device(const char *address)
{
	char pattern[128], path[64];
	glob_t found;
	int device;

	snprintf(pattern, sizeof(pattern), "/sys/bus/pci/devices/%s/vfio-dev/vfio*", address);
	if (glob(pattern, 0, NULL, &found))
		die("the device is not bound to vfio-pci");
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	device = check(open(path, O_RDWR), path);
	return device;
}

static inline void rig_bind(struct rig *rig, const char *address)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct iommu_hw_info info = { .size = sizeof(info) };

	rig->iommufd = check(open("/dev/iommu", O_RDWR), "/dev/iommu");
	rig->device = rig_open_device(address);
	bind.iommufd = rig->iommufd;
	check(ioctl(rig->device, VFIO_DEVICE_BIND_IOMMUFD, &bind), "BIND_IOMMUFD");
	rig->device_id = bind.out_devid;

	info.dev_id = rig->device_id;
	check(ioctl(rig->iommufd, IOMMU_GET_HW_INFO, &info), "GET_HW_INFO");
	if (!(info.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING))
		die("this IOMMU offers no dirty tracking");
}

/* An address space without mappings. Bits are as coarse as what maps the pages: 4 KiB, please. */
static inline void rig_make_space(struct rig *rig, size_t memory_bytes)
{
	struct iommu_ioas_alloc ioas = { .size = sizeof(ioas) };
	struct iommu_option small = { .size = sizeof(small), .option_id = IOMMU_OPTION_HUGE_PAGES, .op = IOMMU_OPTION_OP_SET };

	check(ioctl(rig->iommufd, IOMMU_IOAS_ALLOC, &ioas), "IOAS_ALLOC");
	rig->ioas = ioas.out_ioas_id;
	small.object_id = rig->ioas;
	check(ioctl(rig->iommufd, IOMMU_OPTION, &small), "OPTION_HUGE_PAGES");

	rig->memory_bytes = memory_bytes;
	rig->memory = mmap(NULL, memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (rig->memory == MAP_FAILED)
		fail("mmap");
}

/* All of the memory. It can be at several places. */
static inline void rig_map(struct rig *rig, uint64_t iova)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = rig->ioas,
		.user_va = (uintptr_t)rig->memory,
		.length = rig->memory_bytes,
		.iova = iova,
	};

	check(ioctl(rig->iommufd, IOMMU_IOAS_MAP, &map), "IOAS_MAP");
}

static inline void rig_attach(struct rig *rig)
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
static inline void rig_enable_device(struct rig *rig)
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

static inline void rig_set_tracking(struct rig *rig, uint32_t flags)
{
	struct iommu_hwpt_set_dirty_tracking set = { .size = sizeof(set), .flags = flags, .hwpt_id = rig->hwpt };

	check(ioctl(rig->iommufd, IOMMU_HWPT_SET_DIRTY_TRACKING, &set), "SET_DIRTY_TRACKING");
}

/* Adds to the bitmap the bits of what is dirty in the range, which is all mapped. */
static inline void rig_read_dirty(struct rig *rig, uint64_t iova, uint64_t length, uint32_t flags, void *bitmap)
{
	struct iommu_hwpt_get_dirty_bitmap get = {
		.size = sizeof(get),
		.hwpt_id = rig->hwpt,
		.flags = flags,
		.iova = iova,
		.length = length,
		.page_size = PAGE_BYTES,
		.data = (uintptr_t)bitmap,
	};

	check(ioctl(rig->iommufd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get), "GET_DIRTY_BITMAP");
}

static inline void rig_set_register(struct rig *rig, unsigned int offset, uint32_t value)
{
	rig->registers[offset / sizeof(value)] = value;
}

/* Has the device write there; it has when this returns. */
static inline void rig_write(struct rig *rig, uint64_t iova, uint32_t length)
{
	rig_set_register(rig, TESTDEV_IOVA_LOW, (uint32_t)iova);
	rig_set_register(rig, TESTDEV_IOVA_HIGH, (uint32_t)(iova >> 32));
	rig_set_register(rig, TESTDEV_LENGTH, length);
	rig_set_register(rig, TESTDEV_DOORBELL, TESTDEV_ARM);
	(void)rig->registers[TESTDEV_TRIGGER / sizeof(uint32_t)];
	/* It compares with a physical address that we do not know, and finds something else: no matter. */
	if (rig->registers[TESTDEV_RESULT / sizeof(uint32_t)] == TESTDEV_WRITE_FAILED)
		die("a DMA write failed");
}

#endif
