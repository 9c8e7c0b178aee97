// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Hands the dma device (1234:7074) to a program: one UIO device for each MSI-X
 * vector, whose event count is the number of interrupts that the CPU took, and
 * whose first mapping is BAR 0.
 *
 * Kernels built without VFIO's no-IOMMU mode have no other way to let a program
 * have MSI-X interrupts where there is no IOMMU. The program does the DMA by
 * physical address, in memory that the kernel was told to leave alone.
 */

#include <linux/dma-mapping.h>
#include <linux/interrupt.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/uio_driver.h>

#define VECTORS 4

static irqreturn_t count(int irq, struct uio_info *info)
{
	return IRQ_HANDLED;
}

static int probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct uio_info *infos;
	int err, i;

	infos = devm_kcalloc(dev, VECTORS, sizeof(*infos), GFP_KERNEL);
	if (!infos)
		return -ENOMEM;
	err = pcim_enable_device(pdev);
	if (err)
		return err;
	err = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (err)
		return err;
	pci_set_master(pdev);
	/* Freed with the device's other managed resources, after the UIO devices. */
	err = pci_alloc_irq_vectors(pdev, VECTORS, VECTORS, PCI_IRQ_MSIX);
	if (err < 0)
		return err;

	for (i = 0; i < VECTORS; i++) {
		struct uio_info *info = &infos[i];

		/* The name says which vector it is. */
		info->name = devm_kasprintf(dev, GFP_KERNEL, "%d", i);
		info->version = "1";
		info->irq = pci_irq_vector(pdev, i);
		info->handler = count;
		info->mem[0].name = "bar0";
		info->mem[0].addr = pci_resource_start(pdev, 0);
		info->mem[0].size = pci_resource_len(pdev, 0);
		info->mem[0].memtype = UIO_MEM_PHYS;
		if (!info->name)
			return -ENOMEM;
		err = devm_uio_register_device(dev, info);
		if (err)
			return err;
	}
	return 0;
}

static const struct pci_device_id ids[] = {
	{ PCI_DEVICE(0x1234, 0x7074) },
	{ }
};
MODULE_DEVICE_TABLE(pci, ids);

static struct pci_driver pagetrail_uio = {
	.name = "pagetrail_uio",
	.id_table = ids,
	.probe = probe,
};
module_pci_driver(pagetrail_uio);

MODULE_DESCRIPTION("MSI-X vectors of pagetrail's dma device as UIO devices");
MODULE_LICENSE("Dual MIT/GPL");
