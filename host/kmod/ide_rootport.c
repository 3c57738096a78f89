// SPDX-License-Identifier: GPL-2.0
/*
 * Gives a root port an IDE capability that QEMU's does not have: registers in this module's memory,
 * at the end of the port's configuration space and of its list of capabilities. A stream is secure
 * there as soon as it is enabled, for there are no keys and no link to encrypt.
 *
 * The kernel looks for capabilities when it finds a port, so it has to find it again:
 *
 *	insmod ide_rootport.ko port=0000:00:02.0
 *	echo 1 > /sys/bus/pci/devices/0000:00:02.0/remove
 *	echo 1 > /sys/bus/pci/rescan
 *
 * It stays: buses below the port inherit the accessors, so there is no good moment to go.
 */
#include <linux/bitfield.h>
#include <linux/module.h>
#include <linux/pci.h>

/* Three streams with one address association block each, where QEMU's port has nothing. */
#define IDE_AT		0xc00
#define STREAMS		3
#define STREAM_SIZE	PCI_IDE_SEL_BLOCK_SIZE(1)
#define IDE_SIZE	(PCI_IDE_LINK_STREAM_0 + STREAMS * STREAM_SIZE)

static char *port;
module_param(port, charp, 0444);
MODULE_PARM_DESC(port, "address of the root port, such as 0000:00:02.0");

static struct pci_ops *stock_ops;
static struct pci_ops ide_ops;
static struct pci_bus *bus;
static unsigned int devfn;
/* The capability that was the last. */
static int last;
/* The registers, under the PCI core's lock for accesses. */
static u32 registers[IDE_SIZE / sizeof(u32)];

static bool in_capability(int where)
{
	return where >= IDE_AT && where < IDE_AT + IDE_SIZE;
}

/* Writes a register as far as it can be written. */
static void set_register(int offset, u32 value)
{
	int in_stream = (offset - PCI_IDE_LINK_STREAM_0) % (int)STREAM_SIZE;
	u32 *reg = &registers[offset / sizeof(u32)];

	if (offset < PCI_IDE_LINK_STREAM_0 || in_stream == PCI_IDE_SEL_CAP ||
	    in_stream == PCI_IDE_SEL_STS)
		return;
	*reg = value;
	if (in_stream == PCI_IDE_SEL_CTL)
		reg[1] = value & PCI_IDE_SEL_CTL_EN ? PCI_IDE_SEL_STS_STATE_SECURE :
						      PCI_IDE_SEL_STS_STATE_INSECURE;
}

static int ide_read(struct pci_bus *on, unsigned int slot, int where, int size, u32 *value)
{
	int shift = 8 * (where & 3);
	u32 dword;
	int ret;

	if (on != bus || slot != devfn || (!in_capability(where) && (where & ~3) != last))
		return stock_ops->read(on, slot, where, size, value);
	if (in_capability(where)) {
		dword = registers[(where - IDE_AT) / sizeof(u32)];
	} else {
		ret = stock_ops->read(on, slot, last, 4, &dword);
		if (ret)
			return ret;
		dword = (dword & GENMASK(19, 0)) | (u32)IDE_AT << 20;
	}
	*value = (dword >> shift) & GENMASK(8 * size - 1, 0);
	return PCIBIOS_SUCCESSFUL;
}

static int ide_write(struct pci_bus *on, unsigned int slot, int where, int size, u32 value)
{
	int shift = 8 * (where & 3);
	u32 mask = GENMASK(8 * size - 1, 0) << shift;
	int offset = (where & ~3) - IDE_AT;

	if (on != bus || slot != devfn || !in_capability(where))
		return stock_ops->write(on, slot, where, size, value);
	set_register(offset, (registers[offset / sizeof(u32)] & ~mask) | ((value << shift) & mask));
	return PCIBIOS_SUCCESSFUL;
}

/* The end of the list of extended capabilities; 0 if the port has no room or IDE already. */
static int find_last(struct pci_dev *pdev)
{
	int at = PCI_CFG_SPACE_SIZE;
	u32 header;

	/* A list cannot be longer than there are places for its parts. */
	for (int i = 0; i < PCI_CFG_SPACE_EXP_SIZE / 8; i++) {
		if (pci_read_config_dword(pdev, at, &header) || !header || header == ~0u ||
		    PCI_EXT_CAP_ID(header) == PCI_EXT_CAP_ID_IDE || at >= IDE_AT)
			return 0;
		if (PCI_EXT_CAP_NEXT(header) < PCI_CFG_SPACE_SIZE)
			return at;
		at = PCI_EXT_CAP_NEXT(header);
	}
	return 0;
}

static int __init ide_rootport_init(void)
{
	unsigned int domain, number, device, function;

	if (!port || sscanf(port, "%x:%x:%x.%x", &domain, &number, &device, &function) != 4 ||
	    number > 0xff || device > 0x1f || function > 7)
		return -EINVAL;
	devfn = PCI_DEVFN(device, function);
	struct pci_dev *pdev __free(pci_dev_put) =
		pci_get_domain_bus_and_slot(domain, number, devfn);
	if (!pdev)
		return -ENODEV;
	if (!pci_is_pcie(pdev) || pci_pcie_type(pdev) != PCI_EXP_TYPE_ROOT_PORT)
		return -EINVAL;
	last = find_last(pdev);
	if (!last)
		return -EBUSY;

	registers[0] = PCI_EXT_CAP_ID_IDE | 1 << 16;
	registers[PCI_IDE_CAP / sizeof(u32)] = PCI_IDE_CAP_SELECTIVE |
		FIELD_PREP(PCI_IDE_CAP_SEL_NUM, STREAMS - 1);
	for (int i = 0; i < STREAMS; i++)
		registers[(PCI_IDE_LINK_STREAM_0 + i * STREAM_SIZE) / sizeof(u32)] = 1;

	/* The root bus outlives its ports. */
	bus = pdev->bus;
	stock_ops = bus->ops;
	ide_ops = *stock_ops;
	ide_ops.read = ide_read;
	ide_ops.write = ide_write;
	pci_bus_set_ops(bus, &ide_ops);
	pci_info(pdev, "IDE capability at %#x, after the one at %#x\n", IDE_AT, last);
	return 0;
}

module_init(ide_rootport_init);

MODULE_DESCRIPTION("IDE capability for a root port that has none");
MODULE_LICENSE("GPL");
