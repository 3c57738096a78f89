/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Every open file of /dev/edu-dmabuf imports one dma-buf. While it is mapped, reading and writing
 * the file at a position has the edu device read and write the buffer there.
 */
#ifndef EDU_DMABUF_H
#define EDU_DMABUF_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct edu_dmabuf_state - what has become of an import
 * @address: bus address of the first segment, 0 while nothing is mapped
 * @length: bytes mapped
 * @segments: number of segments that are contiguous on the bus
 * @invalidations: how often the exporter has taken the mapping back
 */
struct edu_dmabuf_state {
	__u64 address;
	__u64 length;
	__u32 segments;
	__u32 invalidations;
};

/* Attaches the dma-buf with this descriptor; once for a file. */
#define EDU_DMABUF_ATTACH	_IOW(0xED, 0, __s32)
#define EDU_DMABUF_MAP		_IO(0xED, 1)
#define EDU_DMABUF_UNMAP	_IO(0xED, 2)
#define EDU_DMABUF_STATE	_IOR(0xED, 3, struct edu_dmabuf_state)

#endif
