/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/tdispd-tsm: a link TSM whose firmware is a program.
 *
 * One file serves: it reads requests of the kernel's PCI/TSM core, does DOE transfers for them, and
 * writes answers. Every other file can bind one function to one VM; closing it unbinds. All fields
 * have the machine's byte order; reserved ones are zero, and so are those that an operation does
 * not name.
 */
#ifndef TDISPD_TSM_H
#define TDISPD_TSM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define TDISPD_TSM_ABI		1

/* Most bytes of a guest request, of its response, and of a DOE payload either way. */
#define TDISPD_TSM_MAX		65536

/* struct tdispd_tsm_request.op */
#define TDISPD_TSM_CONNECT	1
#define TDISPD_TSM_DISCONNECT	2
#define TDISPD_TSM_BIND		3
#define TDISPD_TSM_UNBIND	4
#define TDISPD_TSM_GUEST	5

/* struct tdispd_tsm_request.flags of CONNECT: the kernel has set up an IDE stream. */
#define TDISPD_TSM_STREAM	1

/**
 * struct tdispd_tsm_request - what read() returns, with the guest's request behind it
 * @cookie: names the request in DOE transfers and in the answer
 * @op: TDISPD_TSM_CONNECT to TDISPD_TSM_GUEST
 * @flags: TDISPD_TSM_STREAM
 * @timeout_ms: how long the kernel waits from when the request was made
 * @tdi_id: BIND, UNBIND, GUEST: the VM's name for the function
 * @scope: GUEST: enum pci_tsm_req_scope
 * @payload_len: GUEST: bytes behind this structure
 * @response_len: GUEST: most bytes of the response
 * @segment: PCI segment of both functions
 * @function: requester id of the function
 * @dsm: requester id of the function with the DSM
 * @stream_id: CONNECT with TDISPD_TSM_STREAM: the stream to key
 * @reserved: zero
 */
struct tdispd_tsm_request {
	__u64 cookie;
	__u32 op;
	__u32 flags;
	__u32 timeout_ms;
	__u32 tdi_id;
	__u32 scope;
	__u32 payload_len;
	__u32 response_len;
	__u16 segment;
	__u16 function;
	__u16 dsm;
	__u8 stream_id;
	__u8 reserved[5];
};

/**
 * struct tdispd_tsm_answer - what write() takes, with the response to the guest behind it
 * @cookie: the request's
 * @code: GUEST: result for the guest
 * @error: zero, or a negative errno
 * @payload_len: bytes behind this structure; none with an error
 *
 * ENOENT: the kernel waits no longer, and has undone what the request was to do.
 */
struct tdispd_tsm_answer {
	__u64 cookie;
	__u64 code;
	__s32 error;
	__u32 payload_len;
};

/**
 * struct tdispd_tsm_doe - a DOE transfer through the mailbox of a request's DSM
 * @cookie: a request that has been read and not answered
 * @request: address of the payload, without the object's header
 * @response: address of room for the response's payload
 * @request_len: bytes
 * @response_len: bytes of room; on return what is used
 * @type: 1 for SPDM, 2 for secured SPDM
 * @reserved: zero
 */
struct tdispd_tsm_doe {
	__u64 cookie;
	__u64 request;
	__u64 response;
	__u32 request_len;
	__u32 response_len;
	__u32 type;
	__u32 reserved;
};

/**
 * struct tdispd_tsm_bind - a function and the VM it is for
 * @vm_fd: what KVM_CREATE_VM returned
 * @tdi_id: the VM's name for the function
 * @segment: PCI segment
 * @function: requester id
 * @reserved: zero
 */
struct tdispd_tsm_bind {
	__s32 vm_fd;
	__u32 tdi_id;
	__u16 segment;
	__u16 function;
	__u32 reserved;
};

/**
 * struct tdispd_tsm_guest - a request of the guest's about the function that this file has bound
 * @request: address
 * @response: address of room
 * @code: on return the TSM's result, also with an error
 * @request_len: bytes
 * @response_len: bytes of room; on return what is used
 * @scope: 0 to be told something, 1 to change the TDI's state
 * @reserved: zero
 */
struct tdispd_tsm_guest {
	__u64 request;
	__u64 response;
	__u64 code;
	__u32 request_len;
	__u32 response_len;
	__u32 scope;
	__u32 reserved;
};

/*
 * A guest's request begins with one of these in a __u32, and nothing follows but behind the last;
 * the kernel does not look at it.
 */
#define TDISPD_TSM_GUEST_STATE	1	/* response: TDISP's state code in a __u32 */
#define TDISPD_TSM_GUEST_REPORT	2	/* response: the device's interface report */
#define TDISPD_TSM_GUEST_START	3	/* scope 1; no response */
#define TDISPD_TSM_GUEST_SEALED	4	/* behind it what the guest asks its TSM, under their key */

/* Returns TDISPD_TSM_ABI. */
#define TDISPD_TSM_VERSION	_IO(0xE7, 0)
/* From now on this file serves; EBUSY if another one does. */
#define TDISPD_TSM_SERVE	_IO(0xE7, 1)
#define TDISPD_TSM_DOE		_IOWR(0xE7, 2, struct tdispd_tsm_doe)
#define TDISPD_TSM_BIND_VM	_IOW(0xE7, 3, struct tdispd_tsm_bind)
#define TDISPD_TSM_UNBIND_VM	_IO(0xE7, 4)
#define TDISPD_TSM_GUEST_REQ	_IOWR(0xE7, 5, struct tdispd_tsm_guest)

#endif
