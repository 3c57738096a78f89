// SPDX-License-Identifier: GPL-2.0
/*
 * What the PCI/TSM core asks of a link TSM. The kernel's part is here: contexts, and the IDE
 * stream's registers at both ends. All else is a request to user space.
 *
 * connect, bind and guest_req can be killed. disconnect and unbind cannot, as they may be part of a
 * device's removal; they are over when user space has had its time, whatever it did with it.
 */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-ide.h>
#include <linux/slab.h>
#include <linux/tsm.h>

#include "internal.h"

static unsigned int timeout_ms = 30000;
module_param(timeout_ms, uint, 0644);
MODULE_PARM_DESC(timeout_ms, "how long connect, bind and guest requests wait for user space");

static unsigned int teardown_timeout_ms = 10000;
module_param(teardown_timeout_ms, uint, 0644);
MODULE_PARM_DESC(teardown_timeout_ms, "how long disconnect and unbind wait for user space");

static bool enable_first;
module_param(enable_first, bool, 0644);
MODULE_PARM_DESC(enable_first, "enable streams before they have keys, as some devices want");

/* Longer is forever, and would not fit a long of jiffies everywhere. */
#define LONGEST_MS	(24 * 60 * 60 * 1000u)

/* A function with a DSM. */
struct link_dsm {
	struct pci_tsm_pf0 pf0;
	struct pci_ide *ide;	/* NULL without a stream */
};

/* A bound function. */
struct link_tdi {
	struct pci_tdi tdi;
	struct client *owner;	/* NULL if it was not bound by a file of ours */
};

static struct link_dsm *to_link_dsm(struct pci_dev *pdev)
{
	return container_of(pdev->tsm, struct link_dsm, pf0.base_tsm);
}

static struct upcall link_request(struct pci_dev *pdev, u32 op, unsigned int timeout)
{
	struct pci_dev *dsm = pdev->tsm->dsm_dev;

	return (struct upcall) {
		.dsm = dsm,
		.head = {
			.op = op,
			.timeout_ms = clamp(timeout, 1u, LONGEST_MS),
			.segment = pci_domain_nr(pdev->bus),
			.function = pci_dev_id(pdev),
			.dsm = pci_dev_id(dsm),
		},
	};
}

/* Nothing depends on the answer: what is not torn down now is found at the next connect. */
static void link_teardown(struct pci_dev *pdev, u32 op, u32 tdi_id)
{
	struct upcall up = link_request(pdev, op, READ_ONCE(teardown_timeout_ms));
	int ret;

	up.head.tdi_id = tdi_id;
	ret = upcall_run(&up, false);
	if (ret)
		pci_notice(pdev, "TSM: %s without user space (%pe)\n",
			   op == TDISPD_TSM_UNBIND ? "unbound" : "disconnected", ERR_PTR(ret));
}

static struct pci_tsm *link_probe(struct tsm_dev *tsm_dev, struct pci_dev *pdev)
{
	if (is_pci_tsm_pf0(pdev)) {
		struct link_dsm *dsm __free(kfree) = kzalloc(sizeof(*dsm), GFP_KERNEL);

		if (!dsm || pci_tsm_pf0_constructor(pdev, &dsm->pf0, tsm_dev))
			return NULL;
		return &no_free_ptr(dsm)->pf0.base_tsm;
	}

	struct pci_tsm *tsm __free(kfree) = kzalloc(sizeof(*tsm), GFP_KERNEL);

	if (!tsm || pci_tsm_link_constructor(pdev, tsm, tsm_dev))
		return NULL;
	return no_free_ptr(tsm);
}

static void link_remove(struct pci_tsm *tsm)
{
	struct link_dsm *dsm;

	if (!is_pci_tsm_pf0(tsm->pdev)) {
		kfree(tsm);
		return;
	}
	dsm = container_of(tsm, struct link_dsm, pf0.base_tsm);
	pci_tsm_pf0_destructor(&dsm->pf0);
	kfree(dsm);
}

/* Programs a stream between device and root port, where both can have one. */
static int stream_prepare(struct pci_dev *pdev, struct link_dsm *dsm)
{
	struct pci_dev *port = pcie_find_root_port(pdev);
	struct pci_ide *ide __free(pci_ide_stream_release) = NULL;
	int ret;

	if (!port || !port->ide_cap || !pdev->ide_cap) {
		pci_info(pdev, "TSM: no IDE between device and root port, no stream\n");
		return 0;
	}
	ide = pci_ide_stream_alloc(pdev);
	if (!ide)
		return -EBUSY;
	ide->stream_id = ide->host_bridge_stream;
	/* TDISP binds a TDI to the default stream (PCIe 6.1 section 11.3.8). */
	ide->partner[PCI_IDE_EP].default_stream = 1;
	ret = pci_ide_stream_register(ide);
	if (ret)
		return ret;
	pci_ide_stream_setup(port, ide);
	pci_ide_stream_setup(pdev, ide);
	dsm->ide = no_free_ptr(ide);
	return 0;
}

/* Enables both ends. With the keys in use, the first look at either has to see a secure stream. */
static int stream_enable(struct pci_dev *pdev, struct pci_ide *ide)
{
	int port = pci_ide_stream_enable(pcie_find_root_port(pdev), ide);
	int device = pci_ide_stream_enable(pdev, ide);

	return port ?: device;
}

static void stream_release(struct link_dsm *dsm)
{
	if (dsm->ide)
		pci_ide_stream_release(dsm->ide);
	dsm->ide = NULL;
}

static int link_connect(struct pci_dev *pdev)
{
	struct upcall up = link_request(pdev, TDISPD_TSM_CONNECT, READ_ONCE(timeout_ms));
	struct link_dsm *dsm = to_link_dsm(pdev);
	int ret;

	ret = stream_prepare(pdev, dsm);
	if (ret)
		return ret;
	if (dsm->ide) {
		up.head.flags = TDISPD_TSM_STREAM;
		up.head.stream_id = dsm->ide->stream_id;
		/* It cannot be secure yet; that is looked at when there are keys. */
		if (READ_ONCE(enable_first))
			stream_enable(pdev, dsm->ide);
	}
	ret = upcall_run(&up, true);
	if (ret)
		goto release;
	if (dsm->ide) {
		ret = stream_enable(pdev, dsm->ide);
		if (ret) {
			pci_notice(pdev, "TSM: the stream is not secure (%pe)\n", ERR_PTR(ret));
			link_teardown(pdev, TDISPD_TSM_DISCONNECT, 0);
			goto release;
		}
	}
	return 0;

release:
	stream_release(dsm);
	return ret;
}

static void link_disconnect(struct pci_dev *pdev)
{
	link_teardown(pdev, TDISPD_TSM_DISCONNECT, 0);
	stream_release(to_link_dsm(pdev));
}

static struct pci_tdi *link_bind(struct pci_dev *pdev, struct kvm *kvm, u32 tdi_id)
{
	struct link_tdi *tdi __free(kfree) = kzalloc(sizeof(*tdi), GFP_KERNEL);
	struct upcall up = link_request(pdev, TDISPD_TSM_BIND, READ_ONCE(timeout_ms));
	int ret;

	if (!tdi)
		return ERR_PTR(-ENOMEM);
	up.head.tdi_id = tdi_id;
	ret = upcall_run(&up, true);
	if (ret)
		return ERR_PTR(ret);
	pci_tsm_tdi_constructor(pdev, &tdi->tdi, kvm, tdi_id);
	tdi->owner = client_binding();
	if (tdi->owner)
		WRITE_ONCE(tdi->owner->bound, true);
	return &no_free_ptr(tdi)->tdi;
}

static void link_unbind(struct pci_tdi *pci_tdi)
{
	struct link_tdi *tdi = container_of(pci_tdi, struct link_tdi, tdi);

	link_teardown(tdi->tdi.pdev, TDISPD_TSM_UNBIND, tdi->tdi.tdi_id);
	/* After this the owner may go. */
	if (tdi->owner)
		WRITE_ONCE(tdi->owner->bound, false);
	kfree(tdi);
}

static ssize_t link_guest_req(struct pci_tdi *tdi, enum pci_tsm_req_scope scope,
			      sockptr_t req_in, size_t in_len, sockptr_t req_out, size_t out_len,
			      u64 *tsm_code)
{
	struct upcall up = link_request(tdi->pdev, TDISPD_TSM_GUEST, READ_ONCE(timeout_ms));
	int ret;

	if (!in_len || in_len > TDISPD_TSM_MAX)
		return -EINVAL;
	void *request __free(kvfree) = kvmalloc(in_len, GFP_KERNEL);
	if (!request)
		return -ENOMEM;
	if (copy_from_sockptr(request, req_in, in_len))
		return -EFAULT;
	up.payload = request;
	up.head.payload_len = in_len;
	up.head.response_len = min_t(size_t, out_len, TDISPD_TSM_MAX);
	up.head.tdi_id = tdi->tdi_id;
	up.head.scope = scope;
	ret = upcall_run(&up, true);
	void *reply __free(kvfree) = up.reply;
	if (tsm_code)
		*tsm_code = up.code;
	if (ret)
		return ret;
	if (up.reply_len && copy_to_sockptr(req_out, reply, up.reply_len))
		return -EFAULT;
	return out_len - up.reply_len;
}

struct pci_tsm_ops link_ops = {
	.probe = link_probe,
	.remove = link_remove,
	.connect = link_connect,
	.disconnect = link_disconnect,
	.bind = link_bind,
	.unbind = link_unbind,
	.guest_req = link_guest_req,
};
