/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of this module know of each other. */
#ifndef TDISPD_TSM_INTERNAL_H
#define TDISPD_TSM_INTERNAL_H

#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/pci.h>
#include <linux/pci-tsm.h>
#include <linux/poll.h>
#include <linux/types.h>

#include "tdispd_tsm.h"

/**
 * struct client - an open file
 * @vm: file of the VM that @pdev was bound to, which keeps the VM alive
 * @pdev: function that was bound
 * @bound: whether it still is; a disconnect takes it away from the other side
 */
struct client {
	struct file *vm;
	struct pci_dev *pdev;
	bool bound;
};

/**
 * struct upcall - a request to user space, on the stack of whoever waits for the answer
 * @head: what to ask; upcall_run() fills in the cookie
 * @payload: @head.payload_len bytes
 * @dsm: function whose mailbox serves this request
 * @reply: the answer's payload, for the caller to free
 * @reply_len: bytes of it
 * @code: the answer's result for the guest
 * @node: in the list of requests, under its lock, as are all further fields
 * @done: answered, or never will be
 * @error: the answer, once @answered
 * @taken: has been read
 * @answered: is over
 * @doe: a transfer is under way
 */
struct upcall {
	struct tdispd_tsm_request head;
	const void *payload;
	struct pci_dev *dsm;
	void *reply;
	u32 reply_len;
	u64 code;
	struct list_head node;
	struct completion done;
	int error;
	bool taken;
	bool answered;
	bool doe;
};

/* upcall.c: towards the file that serves */
int upcall_run(struct upcall *up, bool killable);
int upcall_serve(struct client *client);
void upcall_leave(struct client *client);
ssize_t upcall_read(struct client *client, char __user *to, size_t count, bool nonblock);
ssize_t upcall_write(struct client *client, const char __user *from, size_t count);
__poll_t upcall_poll(struct client *client, struct file *file, poll_table *wait);
long upcall_doe(struct client *client, struct tdispd_tsm_doe __user *user);

/* client.c: towards files that bind */
struct client *client_binding(void);
long client_bind(struct client *client, struct tdispd_tsm_bind __user *user);
long client_unbind(struct client *client);
long client_guest(struct client *client, struct tdispd_tsm_guest __user *user);
void client_release(struct client *client);

/* link.c: towards the PCI/TSM core */
extern struct pci_tsm_ops link_ops;

#endif
