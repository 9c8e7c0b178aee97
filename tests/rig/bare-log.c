/*
 * Reads the log of a virtual function with nothing but the system calls, to compare with.
 *
 * Usage: bare-log PCI-ADDRESS MEMORY TIMES, of a virtual function that mlx5_vfio_pci has. MEMORY bytes of memory are mapped TIMES times,
 * one after the other from 4 GiB on. The commands are in bare.h.
 */
#include "bare.h"

/* QEMU's docs/specs/mlx5-rig.rst. */
#define VF_STATUS 0x04
#define VF_ADDRESS 0x08
#define VF_STRIDE 0x10
#define VF_VALUE 0x18
#define VF_LENGTH 0x20
#define VF_COUNT 0x24
#define VF_INTERVAL 0x28
#define VF_GO 0x2c
#define VF_BUSY 1u
#define VF_DONE 2u

struct start {
	struct vfio_device_feature feature;
	struct vfio_device_feature_dma_logging_control control;
};

struct report {
	struct vfio_device_feature feature;
	struct vfio_device_feature_dma_logging_report report;
};

static void attach(struct rig *rig)
{
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach), .pt_id = rig->ioas };

	check(ioctl(rig->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), "ATTACH_IOMMUFD_PT");
}

static void start_log(struct rig *rig, uint64_t bytes)
{
	struct vfio_device_feature_dma_logging_range range = { .iova = IOVA, .length = bytes };
	struct start start = {
		.feature = {
			.argsz = sizeof(start),
			.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
		},
		.control = { .page_size = PAGE_BYTES, .num_ranges = 1, .ranges = (uintptr_t)&range },
	};

	check(ioctl(rig->device, VFIO_DEVICE_FEATURE, &start), "DMA_LOGGING_START");
}

static void set64(struct rig *rig, unsigned int offset, uint64_t value)
{
	rig_set_register(rig, offset, (uint32_t)value);
	rig_set_register(rig, offset + sizeof(uint32_t), (uint32_t)(value >> 32));
}

static void write_pages(struct rig *rig, uint64_t bytes, uint64_t pages)
{
	volatile uint32_t *status = rig->registers + VF_STATUS / sizeof(uint32_t);

	if (!pages)
		die("nothing to write");
	set64(rig, VF_ADDRESS, IOVA);
	set64(rig, VF_STRIDE, bytes / PAGE_BYTES / pages * PAGE_BYTES);
	set64(rig, VF_VALUE, 1);
	rig_set_register(rig, VF_LENGTH, sizeof(uint64_t));
	rig_set_register(rig, VF_COUNT, pages);
	rig_set_register(rig, VF_INTERVAL, 0);
	rig_set_register(rig, VF_GO, 1);
	while (*status == VF_BUSY)
		;
	if (*status != VF_DONE)
		die("a DMA write failed");
}

static void read_log(struct rig *rig, uint64_t bytes, uint64_t *bitmap)
{
	struct report report = {
		.feature = {
			.argsz = sizeof(report),
			.flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
		},
		.report = { .iova = IOVA, .length = bytes, .page_size = PAGE_BYTES, .bitmap = (uintptr_t)bitmap },
	};

	check(ioctl(rig->device, VFIO_DEVICE_FEATURE, &report), "DMA_LOGGING_REPORT");
}

int main(int argc, char **argv)
{
	const struct bare log = {
		.usage = "bare-log PCI-ADDRESS MEMORY TIMES",
		.attach = attach,
		.start = start_log,
		.write = write_pages,
		.read = read_log,
	};

	return bare_main(&log, argc, argv);
}
