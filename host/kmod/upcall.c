// SPDX-License-Identifier: GPL-2.0
/*
 * Requests to the file that serves. Whoever asks waits for a limited time, and takes its request
 * out of the list when it leaves: a cookie that is not in the list means nothing any more. A
 * transfer under way is waited for; the mailbox has time limits of its own.
 */
#include <linux/err.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "internal.h"

/* Beyond these are codes that only the kernel itself may return, such as ERESTARTSYS. */
#define LAST_ERRNO	511

static DEFINE_MUTEX(upcall_lock);
static LIST_HEAD(upcalls);
static struct client *server;
static u64 last_cookie;
/* Requests that have not been read; written under the lock. */
static unsigned int untaken;

static DECLARE_WAIT_QUEUE_HEAD(readers);
static DECLARE_WAIT_QUEUE_HEAD(doe_ended);

static void upcall_take(struct upcall *up)
{
	up->taken = true;
	WRITE_ONCE(untaken, untaken - 1);
}

static void upcall_end(struct upcall *up, int error)
{
	if (!up->taken)
		upcall_take(up);
	up->error = error;
	up->answered = true;
	complete(&up->done);
}

/* A request that has been read and waits for its answer. */
static struct upcall *upcall_find(u64 cookie)
{
	struct upcall *up;

	lockdep_assert_held(&upcall_lock);
	list_for_each_entry(up, &upcalls, node)
		if (up->head.cookie == cookie && up->taken && !up->answered)
			return up;
	return NULL;
}

/**
 * upcall_run() - ask user space and wait for the answer
 * @up: the request
 * @killable: whether a fatal signal ends the wait
 *
 * Return: the answer's error, -ENOTCONN if nobody serves or the server goes away, -ETIMEDOUT, or
 * -EINTR.
 */
int upcall_run(struct upcall *up, bool killable)
{
	unsigned long timeout = msecs_to_jiffies(up->head.timeout_ms);
	long left;

	init_completion(&up->done);
	scoped_guard(mutex, &upcall_lock) {
		if (!server)
			return -ENOTCONN;
		up->head.cookie = ++last_cookie;
		list_add_tail(&up->node, &upcalls);
		WRITE_ONCE(untaken, untaken + 1);
	}
	wake_up_interruptible(&readers);
	if (killable)
		left = wait_for_completion_killable_timeout(&up->done, timeout);
	else
		left = wait_for_completion_timeout(&up->done, timeout);
	scoped_guard(mutex, &upcall_lock) {
		if (!up->taken)
			upcall_take(up);
		list_del(&up->node);
	}
	wait_event(doe_ended, !READ_ONCE(up->doe));
	if (up->answered)
		return up->error;
	return left ? -EINTR : -ETIMEDOUT;
}

/* Makes a file the one that serves. */
int upcall_serve(struct client *client)
{
	guard(mutex)(&upcall_lock);
	if (server && server != client)
		return -EBUSY;
	server = client;
	return 0;
}

/* The file is closed: if it was the one that serves, nobody waits for it any longer. */
void upcall_leave(struct client *client)
{
	struct upcall *up;

	guard(mutex)(&upcall_lock);
	if (server != client)
		return;
	server = NULL;
	list_for_each_entry(up, &upcalls, node)
		if (!up->answered)
			upcall_end(up, -ENOTCONN);
}

/* Copies the oldest request that has not been read; -EAGAIN if there is none. */
static ssize_t upcall_copy(struct client *client, void *to, size_t room, u64 *cookie)
{
	struct upcall *up;
	size_t size;

	guard(mutex)(&upcall_lock);
	if (server != client)
		return -ENOTCONN;
	list_for_each_entry(up, &upcalls, node) {
		if (up->taken || up->answered)
			continue;
		size = sizeof(up->head) + up->head.payload_len;
		if (size > room)
			return -EMSGSIZE;
		memcpy(to, &up->head, sizeof(up->head));
		if (up->head.payload_len)
			memcpy(to + sizeof(up->head), up->payload, up->head.payload_len);
		*cookie = up->head.cookie;
		upcall_take(up);
		return size;
	}
	return -EAGAIN;
}

/* A request that could not be handed over fails: nobody could answer it. */
static void upcall_lost(u64 cookie)
{
	struct upcall *up;

	guard(mutex)(&upcall_lock);
	up = upcall_find(cookie);
	if (up)
		upcall_end(up, -EFAULT);
}

ssize_t upcall_read(struct client *client, char __user *to, size_t count, bool nonblock)
{
	size_t room = min_t(size_t, count, sizeof(struct tdispd_tsm_request) + TDISPD_TSM_MAX);
	void *copy __free(kvfree) = kvmalloc(room, GFP_KERNEL);
	ssize_t size;
	u64 cookie;
	int ret;

	if (!copy)
		return -ENOMEM;
	for (;;) {
		size = upcall_copy(client, copy, room, &cookie);
		if (size != -EAGAIN || nonblock)
			break;
		ret = wait_event_interruptible(readers, READ_ONCE(untaken));
		if (ret)
			return ret;
	}
	/* Not under the lock: user memory may take any time. */
	if (size > 0 && copy_to_user(to, copy, size)) {
		upcall_lost(cookie);
		return -EFAULT;
	}
	return size;
}

ssize_t upcall_write(struct client *client, const char __user *from, size_t count)
{
	void *payload __free(kvfree) = NULL;
	struct tdispd_tsm_answer answer;
	struct upcall *up;

	if (count < sizeof(answer))
		return -EINVAL;
	if (copy_from_user(&answer, from, sizeof(answer)))
		return -EFAULT;
	if (answer.payload_len > TDISPD_TSM_MAX ||
	    answer.payload_len != count - sizeof(answer) ||
	    answer.error > 0 || answer.error < -LAST_ERRNO ||
	    (answer.error && answer.payload_len))
		return -EINVAL;
	if (answer.payload_len) {
		payload = vmemdup_user(from + sizeof(answer), answer.payload_len);
		if (IS_ERR(payload))
			return PTR_ERR(payload);
	}

	guard(mutex)(&upcall_lock);
	if (server != client)
		return -ENOTCONN;
	up = upcall_find(answer.cookie);
	if (!up)
		return -ENOENT;
	if (up->doe)
		return -EBUSY;
	if (answer.payload_len > up->head.response_len)
		return -EMSGSIZE;
	up->reply = no_free_ptr(payload);
	up->reply_len = answer.payload_len;
	up->code = answer.code;
	upcall_end(up, answer.error);
	return count;
}

__poll_t upcall_poll(struct client *client, struct file *file, poll_table *wait)
{
	poll_wait(file, &readers, wait);
	return READ_ONCE(untaken) ? EPOLLIN | EPOLLRDNORM | EPOLLOUT : EPOLLOUT;
}

/* From here to upcall_doe_end() the request stays, and with it the core's locks on the device. */
static struct upcall *upcall_doe_begin(struct client *client, u64 cookie)
{
	struct upcall *up;

	guard(mutex)(&upcall_lock);
	if (server != client)
		return ERR_PTR(-ENOTCONN);
	up = upcall_find(cookie);
	if (!up)
		return ERR_PTR(-ENOENT);
	if (up->doe)
		return ERR_PTR(-EBUSY);
	up->doe = true;
	return up;
}

static void upcall_doe_end(struct upcall *up)
{
	scoped_guard(mutex, &upcall_lock)
		WRITE_ONCE(up->doe, false);
	/* The request may be gone now. */
	wake_up_all(&doe_ended);
}

long upcall_doe(struct client *client, struct tdispd_tsm_doe __user *user)
{
	struct tdispd_tsm_doe doe;
	struct upcall *up;
	int ret;

	if (copy_from_user(&doe, user, sizeof(doe)))
		return -EFAULT;
	if (doe.reserved || (doe.type != 1 && doe.type != 2) ||
	    !doe.request_len || doe.request_len > TDISPD_TSM_MAX ||
	    !doe.response_len || doe.response_len > TDISPD_TSM_MAX)
		return -EINVAL;
	void *request __free(kvfree) = vmemdup_user(u64_to_user_ptr(doe.request), doe.request_len);
	if (IS_ERR(request))
		return PTR_ERR(request);
	void *response __free(kvfree) = kvzalloc(doe.response_len, GFP_KERNEL);
	if (!response)
		return -ENOMEM;

	up = upcall_doe_begin(client, doe.cookie);
	if (IS_ERR(up))
		return PTR_ERR(up);
	ret = pci_tsm_doe_transfer(up->dsm, doe.type, request, doe.request_len,
				   response, doe.response_len);
	upcall_doe_end(up);
	if (ret < 0)
		return ret;
	doe.response_len = min_t(u32, ret, doe.response_len);
	if (copy_to_user(u64_to_user_ptr(doe.response), response, doe.response_len) ||
	    put_user(doe.response_len, &user->response_len))
		return -EFAULT;
	return 0;
}
