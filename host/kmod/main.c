// SPDX-License-Identifier: GPL-2.0
/*
 * A link TSM whose firmware is a program: the kernel's PCI/TSM core with a device that speaks
 * TDISP, on a machine without the silicon for it. This file registers it and shares out the
 * character device's calls.
 */
#include <linux/device/faux.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/tsm.h>

#include "internal.h"

static struct faux_device *parent;
static struct tsm_dev *tsm;

static int tdispd_tsm_open(struct inode *inode, struct file *file)
{
	struct client *client = kzalloc(sizeof(*client), GFP_KERNEL);

	if (!client)
		return -ENOMEM;
	file->private_data = client;
	return stream_open(inode, file);
}

static int tdispd_tsm_release(struct inode *inode, struct file *file)
{
	struct client *client = file->private_data;

	upcall_leave(client);
	client_release(client);
	kfree(client);
	return 0;
}

static ssize_t tdispd_tsm_read(struct file *file, char __user *to, size_t count, loff_t *position)
{
	return upcall_read(file->private_data, to, count, file->f_flags & O_NONBLOCK);
}

static ssize_t tdispd_tsm_write(struct file *file, const char __user *from, size_t count,
				loff_t *position)
{
	return upcall_write(file->private_data, from, count);
}

static __poll_t tdispd_tsm_poll(struct file *file, poll_table *wait)
{
	return upcall_poll(file->private_data, file, wait);
}

static long tdispd_tsm_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *user = (void __user *)argument;
	struct client *client = file->private_data;

	switch (command) {
	case TDISPD_TSM_VERSION:
		return TDISPD_TSM_ABI;
	case TDISPD_TSM_SERVE:
		return upcall_serve(client);
	case TDISPD_TSM_DOE:
		return upcall_doe(client, user);
	case TDISPD_TSM_BIND_VM:
		return client_bind(client, user);
	case TDISPD_TSM_UNBIND_VM:
		return client_unbind(client);
	case TDISPD_TSM_GUEST_REQ:
		return client_guest(client, user);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations tdispd_tsm_fops = {
	.owner = THIS_MODULE,
	.open = tdispd_tsm_open,
	.release = tdispd_tsm_release,
	.read = tdispd_tsm_read,
	.write = tdispd_tsm_write,
	.poll = tdispd_tsm_poll,
	.unlocked_ioctl = tdispd_tsm_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "tdispd-tsm",
	.fops = &tdispd_tsm_fops,
	.mode = 0600,
};

static int __init tdispd_tsm_init(void)
{
	int ret;

	parent = faux_device_create(KBUILD_MODNAME, NULL, NULL);
	if (!parent)
		return -ENODEV;
	ret = misc_register(&misc);
	if (ret)
		goto destroy;
	tsm = tsm_register(&parent->dev, &link_ops);
	if (IS_ERR(tsm)) {
		ret = PTR_ERR(tsm);
		goto deregister;
	}
	return 0;

deregister:
	misc_deregister(&misc);
destroy:
	faux_device_destroy(parent);
	return ret;
}

/* No file is open, so nobody serves: whatever is connected ends without user space. */
static void __exit tdispd_tsm_exit(void)
{
	tsm_unregister(tsm);
	misc_deregister(&misc);
	faux_device_destroy(parent);
}

module_init(tdispd_tsm_init);
module_exit(tdispd_tsm_exit);

MODULE_DESCRIPTION("Link TSM whose firmware is a user-space program");
MODULE_LICENSE("GPL");
