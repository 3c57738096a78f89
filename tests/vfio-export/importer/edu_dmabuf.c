// SPDX-License-Identifier: GPL-2.0
/*
 * Imports dma-bufs for QEMU's edu device, which reads and writes them peer to peer: a test's
 * stand-in for the drivers that import what vfio-pci exports. It keeps the rules for importers of
 * MMIO: dynamic, peer to peer, and without a mapping when invalidate_mappings() returns.
 */
#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "edu_dmabuf.h"

/* docs/specs/edu.rst of QEMU */
#define EDU_DMA_SOURCE		0x80
#define EDU_DMA_DESTINATION	0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_COMMAND		0x98
#define  EDU_DMA_RUN		BIT(0)
#define  EDU_DMA_FROM_EDU	BIT(1)
#define EDU_BUFFER		0x40000
#define EDU_BUFFER_SIZE		SZ_4K
#define EDU_ADDRESS_BITS	28

struct edu {
	struct pci_dev *pdev;
	void __iomem *regs;
	struct mutex lock;	/* the device and its page do one transfer at a time */
	void *page;
	dma_addr_t page_address;
	struct miscdevice misc;
};

struct import {
	struct edu *edu;
	struct mutex lock;	/* taken before the buffer's reservation lock */
	struct dma_buf_attachment *attachment;
	/* Under the buffer's reservation lock: */
	struct sg_table *sgt;
	u32 invalidations;
};

/* The longest address is one of 28 bits. */
static int edu_dma(struct edu *edu, u32 source, u32 destination, u32 count, u32 direction)
{
	u32 command;

	writel(source, edu->regs + EDU_DMA_SOURCE);
	writel(destination, edu->regs + EDU_DMA_DESTINATION);
	writel(count, edu->regs + EDU_DMA_COUNT);
	writel(EDU_DMA_RUN | direction, edu->regs + EDU_DMA_COMMAND);
	return readl_poll_timeout(edu->regs + EDU_DMA_COMMAND, command, !(command & EDU_DMA_RUN),
				  USEC_PER_MSEC, 10 * USEC_PER_SEC);
}

/* The device has a buffer between what it reads and what it writes. */
static int edu_copy(struct edu *edu, dma_addr_t from, dma_addr_t to, size_t count)
{
	int ret;

	ret = edu_dma(edu, from, EDU_BUFFER, count, 0);
	if (ret)
		return ret;
	return edu_dma(edu, EDU_BUFFER, to, count, EDU_DMA_FROM_EDU);
}

/* With the reservation lock held, here and in whatever calls it. */
static void import_unmap(struct import *import)
{
	if (!import->sgt)
		return;
	dma_buf_unmap_attachment(import->attachment, import->sgt, DMA_BIDIRECTIONAL);
	import->sgt = NULL;
}

/* No transfer is under way: each holds the lock that the caller holds. */
static void import_invalidate(struct dma_buf_attachment *attachment)
{
	struct import *import = attachment->importer_priv;

	import->invalidations++;
	import_unmap(import);
}

static const struct dma_buf_attach_ops import_ops = {
	.allow_peer2peer = true,
	.invalidate_mappings = import_invalidate,
};

static int import_attach(struct import *import, int fd)
{
	struct dma_buf_attachment *attachment;
	struct dma_buf *dmabuf;

	if (import->attachment)
		return -EBUSY;
	dmabuf = dma_buf_get(fd);
	if (IS_ERR(dmabuf))
		return PTR_ERR(dmabuf);
	attachment = dma_buf_dynamic_attach(dmabuf, &import->edu->pdev->dev, &import_ops, import);
	if (IS_ERR(attachment)) {
		dma_buf_put(dmabuf);
		return PTR_ERR(attachment);
	}
	import->attachment = attachment;
	return 0;
}

static int import_map(struct import *import)
{
	struct sg_table *sgt;

	if (import->sgt)
		return -EBUSY;
	sgt = dma_buf_map_attachment(import->attachment, DMA_BIDIRECTIONAL);
	if (IS_ERR(sgt))
		return PTR_ERR(sgt);
	import->sgt = sgt;
	return 0;
}

static void import_state(struct import *import, struct edu_dmabuf_state *state)
{
	struct scatterlist *sg;
	int i;

	state->invalidations = import->invalidations;
	if (!import->sgt)
		return;
	state->address = sg_dma_address(import->sgt->sgl);
	for_each_sgtable_dma_sg(import->sgt, sg, i) {
		state->length += sg_dma_len(sg);
		state->segments++;
	}
}

static long edu_dmabuf_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *user = (void __user *)argument;
	struct import *import = file->private_data;
	struct edu_dmabuf_state state = {};
	struct dma_resv *resv;
	long ret;
	s32 fd;

	guard(mutex)(&import->lock);
	if (command == EDU_DMABUF_ATTACH) {
		if (copy_from_user(&fd, user, sizeof(fd)))
			return -EFAULT;
		return import_attach(import, fd);
	}
	if (!import->attachment)
		return -ENOTCONN;
	resv = import->attachment->dmabuf->resv;
	ret = dma_resv_lock_interruptible(resv, NULL);
	if (ret)
		return ret;
	switch (command) {
	case EDU_DMABUF_MAP:
		ret = import_map(import);
		break;
	case EDU_DMABUF_UNMAP:
		import_unmap(import);
		break;
	case EDU_DMABUF_STATE:
		import_state(import, &state);
		break;
	default:
		ret = -ENOTTY;
	}
	dma_resv_unlock(resv);
	if (command == EDU_DMABUF_STATE && copy_to_user(user, &state, sizeof(state)))
		ret = -EFAULT;
	return ret;
}

/* The bus address of a position in the buffer; *count becomes what is contiguous there. */
static int import_find(struct import *import, loff_t position, size_t *count, dma_addr_t *address)
{
	struct scatterlist *sg;
	int i;

	if (!import->sgt)
		return -ENODEV;
	for_each_sgtable_dma_sg(import->sgt, sg, i) {
		if (position < sg_dma_len(sg)) {
			*address = sg_dma_address(sg) + position;
			*count = min_t(u64, *count, sg_dma_len(sg) - position);
			return 0;
		}
		position -= sg_dma_len(sg);
	}
	*count = 0;
	return 0;
}

static ssize_t import_transfer(struct import *import, char __user *to, const char __user *from,
			       size_t count, loff_t *position)
{
	struct edu *edu = import->edu;
	struct dma_resv *resv;
	dma_addr_t address = 0;
	int ret;

	guard(mutex)(&import->lock);
	if (!import->attachment)
		return -ENOTCONN;
	count = min_t(size_t, count, EDU_BUFFER_SIZE);
	guard(mutex)(&edu->lock);
	if (from && copy_from_user(edu->page, from, count))
		return -EFAULT;
	resv = import->attachment->dmabuf->resv;
	ret = dma_resv_lock_interruptible(resv, NULL);
	if (ret)
		return ret;
	ret = import_find(import, *position, &count, &address);
	if (!ret && count) {
		if (from)
			ret = edu_copy(edu, edu->page_address, address, count);
		else
			ret = edu_copy(edu, address, edu->page_address, count);
	}
	dma_resv_unlock(resv);
	if (ret)
		return ret;
	if (to && copy_to_user(to, edu->page, count))
		return -EFAULT;
	*position += count;
	return count;
}

static ssize_t edu_dmabuf_read(struct file *file, char __user *to, size_t count, loff_t *position)
{
	return import_transfer(file->private_data, to, NULL, count, position);
}

static ssize_t edu_dmabuf_write(struct file *file, const char __user *from, size_t count,
				loff_t *position)
{
	return import_transfer(file->private_data, NULL, from, count, position);
}

static int edu_dmabuf_open(struct inode *inode, struct file *file)
{
	struct miscdevice *misc = file->private_data;
	struct import *import;

	import = kzalloc_obj(*import);
	if (!import)
		return -ENOMEM;
	mutex_init(&import->lock);
	import->edu = container_of(misc, struct edu, misc);
	file->private_data = import;
	return 0;
}

static int edu_dmabuf_release(struct inode *inode, struct file *file)
{
	struct import *import = file->private_data;
	struct dma_buf *dmabuf;

	if (import->attachment) {
		dmabuf = import->attachment->dmabuf;
		dma_resv_lock(dmabuf->resv, NULL);
		import_unmap(import);
		dma_resv_unlock(dmabuf->resv);
		dma_buf_detach(dmabuf, import->attachment);
		dma_buf_put(dmabuf);
	}
	kfree(import);
	return 0;
}

static const struct file_operations edu_dmabuf_fops = {
	.owner = THIS_MODULE,
	.open = edu_dmabuf_open,
	.release = edu_dmabuf_release,
	.read = edu_dmabuf_read,
	.write = edu_dmabuf_write,
	.unlocked_ioctl = edu_dmabuf_ioctl,
	.llseek = default_llseek,
};

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu *edu;
	int ret;

	edu = devm_kzalloc(&pdev->dev, sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	edu->pdev = pdev;
	mutex_init(&edu->lock);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	edu->regs = pcim_iomap_region(pdev, 0, KBUILD_MODNAME);
	if (IS_ERR(edu->regs))
		return PTR_ERR(edu->regs);
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(EDU_ADDRESS_BITS));
	if (ret)
		return ret;
	edu->page = dmam_alloc_coherent(&pdev->dev, EDU_BUFFER_SIZE, &edu->page_address,
					GFP_KERNEL);
	if (!edu->page)
		return -ENOMEM;
	pci_set_master(pdev);
	edu->misc.minor = MISC_DYNAMIC_MINOR;
	edu->misc.name = "edu-dmabuf";
	edu->misc.fops = &edu_dmabuf_fops;
	pci_set_drvdata(pdev, edu);
	return misc_register(&edu->misc);
}

static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	misc_deregister(&edu->misc);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = KBUILD_MODNAME,
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
	/* Open files keep the module, and so the binding. */
	.driver.suppress_bind_attrs = true,
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("Peer-to-peer dma-buf importer for QEMU's edu device");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
