// SPDX-License-Identifier: GPL-2.0
/*
 * Files that bind: what a VMM does before its guest can use a function as a TDI. A file has at most
 * one binding, which ends with the file, as it would with vfio's.
 */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/magic.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/*
 * One bind, unbind or guest request at a time, so that between a look at a binding and its use
 * nobody makes another one. Disconnects do not come by here: they only ever end bindings.
 */
static DEFINE_MUTEX(bind_lock);
static struct client *binder;
static struct task_struct *binder_task;

/*
 * Whether a file is a VM of KVM's. KVM tells only its own modules (file_is_kvm()); a name among
 * anonymous inodes is the kernel's to give.
 */
static bool is_vm(struct file *file)
{
	return file->f_path.mnt->mnt_sb->s_magic == ANON_INODE_FS_MAGIC &&
	       !strcmp(file->f_path.dentry->d_name.name, "kvm-vm");
}

/* The file that is binding in this very call; NULL if somebody else in the kernel binds. */
struct client *client_binding(void)
{
	return READ_ONCE(binder_task) == current ? binder : NULL;
}

static void client_forget(struct client *client)
{
	if (client->vm)
		fput(client->vm);
	pci_dev_put(client->pdev);
	client->vm = NULL;
	client->pdev = NULL;
}

long client_bind(struct client *client, struct tdispd_tsm_bind __user *user)
{
	struct tdispd_tsm_bind bind;
	int ret;

	if (copy_from_user(&bind, user, sizeof(bind)))
		return -EFAULT;
	if (bind.reserved)
		return -EINVAL;
	ACQUIRE(mutex_intr, lock)(&bind_lock);
	ret = ACQUIRE_ERR(mutex_intr, &lock);
	if (ret)
		return ret;
	if (READ_ONCE(client->bound))
		return -EBUSY;
	client_forget(client);

	client->vm = fget(bind.vm_fd);
	if (!client->vm)
		return -EBADF;
	if (!is_vm(client->vm)) {
		ret = -EINVAL;
		goto forget;
	}
	client->pdev = pci_get_domain_bus_and_slot(bind.segment, PCI_BUS_NUM(bind.function),
						   bind.function & 0xff);
	if (!client->pdev) {
		ret = -ENODEV;
		goto forget;
	}
	binder = client;
	WRITE_ONCE(binder_task, current);
	ret = pci_tsm_bind(client->pdev, client->vm->private_data, bind.tdi_id);
	WRITE_ONCE(binder_task, NULL);
	/* The core is content if the function is bound to this VM already, by whomever. */
	if (!ret && !READ_ONCE(client->bound))
		ret = -EBUSY;
	if (!ret)
		return 0;
forget:
	client_forget(client);
	return ret;
}

/* With bind_lock held. */
static void client_end(struct client *client)
{
	if (READ_ONCE(client->bound))
		pci_tsm_unbind(client->pdev);
	client_forget(client);
}

long client_unbind(struct client *client)
{
	int ret;

	ACQUIRE(mutex_intr, lock)(&bind_lock);
	ret = ACQUIRE_ERR(mutex_intr, &lock);
	if (ret)
		return ret;
	if (!READ_ONCE(client->bound))
		return -ENOTCONN;
	client_end(client);
	return 0;
}

void client_release(struct client *client)
{
	guard(mutex)(&bind_lock);
	client_end(client);
}

long client_guest(struct client *client, struct tdispd_tsm_guest __user *user)
{
	struct tdispd_tsm_guest guest;
	u64 code = 0;
	ssize_t rest;
	int ret;

	if (copy_from_user(&guest, user, sizeof(guest)))
		return -EFAULT;
	if (guest.reserved || !guest.request_len || guest.request_len > TDISPD_TSM_MAX ||
	    guest.response_len > TDISPD_TSM_MAX ||
	    guest.scope > PCI_TSM_REQ_STATE_CHANGE)
		return -EINVAL;
	void *request __free(kvfree) = vmemdup_user(u64_to_user_ptr(guest.request),
						    guest.request_len);
	if (IS_ERR(request))
		return PTR_ERR(request);
	void *response __free(kvfree) = kvzalloc(max(guest.response_len, 1u), GFP_KERNEL);
	if (!response)
		return -ENOMEM;

	scoped_cond_guard(mutex_intr, return -EINTR, &bind_lock) {
		if (!READ_ONCE(client->bound))
			return -ENOTCONN;
		rest = pci_tsm_guest_req(client->pdev, guest.scope, KERNEL_SOCKPTR(request),
					 guest.request_len, KERNEL_SOCKPTR(response),
					 guest.response_len, &code);
	}
	ret = min_t(ssize_t, rest, 0);
	guest.response_len = ret ? 0 : guest.response_len - rest;
	guest.code = code;
	if (copy_to_user(u64_to_user_ptr(guest.response), response, guest.response_len) ||
	    copy_to_user(user, &guest, sizeof(guest)))
		return -EFAULT;
	return ret;
}
