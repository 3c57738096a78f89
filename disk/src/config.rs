//! What a disk looks like to its driver: configuration space and feature bits (virtio 1.2 §5.2.3 and §5.2.4).

use thiserror::Error;
use virtio_bindings::virtio_blk as abi;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{SECTOR, SEG_MAX, SIZE_MAX};

/// Bytes of configuration space that the device has; what lies beyond reads as zero.
pub const CONFIG_SIZE: usize = size_of::<Config>();

/// Most segments in one DISCARD or WRITE_ZEROES request.
pub(crate) const MAX_RANGES: u32 = 16;

/// Most sectors in one segment of DISCARD or WRITE_ZEROES, 4 GiB: a hole of that size takes a file system no time, and zeroes
/// that have to be written are written in pieces.
pub(crate) const MAX_RANGE_SECTORS: u32 = 1 << 23;

/// virtio-blk configuration space (virtio 1.2 §5.2.4, `struct virtio_blk_config`) up to `write_zeroes_may_unmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Config {
    /// Size of the disk in sectors of 512 bytes.
    pub capacity: U64,
    /// Most bytes in one segment.
    pub size_max: U32,
    /// Most data segments in one request.
    pub seg_max: U32,
    /// Cylinders, heads, sectors: not offered.
    pub geometry: [u8; 4],
    /// Logical block size in bytes.
    pub blk_size: U32,
    /// Logical blocks in a physical one, as an exponent of 2.
    pub physical_block_exp: u8,
    /// Offset of the first aligned logical block.
    pub alignment_offset: u8,
    /// Smallest I/O without a penalty, in logical blocks.
    pub min_io_size: U16,
    /// Best size of sustained I/O, in logical blocks.
    pub opt_io_size: U32,
    /// 1: a write is only as good as the next flush. 0: each write is stable when it is completed.
    pub writeback: u8,
    /// Reserved.
    pub unused0: u8,
    /// Request queues.
    pub num_queues: U16,
    /// Most sectors in a segment of a DISCARD.
    pub max_discard_sectors: U32,
    /// Most segments in a DISCARD.
    pub max_discard_seg: U32,
    /// Alignment in sectors of what a DISCARD really gives back.
    pub discard_sector_alignment: U32,
    /// Most sectors in a segment of a WRITE_ZEROES.
    pub max_write_zeroes_sectors: U32,
    /// Most segments in a WRITE_ZEROES.
    pub max_write_zeroes_seg: U32,
    /// 1: a WRITE_ZEROES with its unmap flag may give the space back.
    pub write_zeroes_may_unmap: u8,
    /// Reserved.
    pub unused1: [u8; 3],
}

const _: () = assert!(CONFIG_SIZE == 60);
const _: () = assert!(std::mem::offset_of!(Config, writeback) == 32);
const _: () = assert!(std::mem::offset_of!(Config, max_discard_sectors) == 36);

/// What is fixed about a disk, beside its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical block size in bytes: 512, 1024, 2048 or 4096.
    pub block_size: u32,
    /// Physical block size in bytes: a power of two, at least the logical one, at most 128 of them.
    pub physical_block_size: u32,
    /// Best size of sustained I/O in bytes, whole logical blocks; 0: nothing to say.
    pub optimal_io_size: u32,
    /// Request queues, 1–256.
    pub queues: u16,
    /// Whether the guest may give space back: DISCARD, and WRITE_ZEROES that unmaps.
    pub discard: bool,
    /// What GET_ID answers: at most 20 bytes of printable ASCII.
    pub serial: String,
}

impl Default for Geometry {
    fn default() -> Self {
        Self {
            block_size: 512,
            physical_block_size: 4096,
            optimal_io_size: 0,
            queues: 1,
            discard: true,
            serial: String::new(),
        }
    }
}

/// What is wrong with a [`Geometry`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum GeometryError {
    /// The logical block size.
    #[error("the block size is 512, 1024, 2048 or 4096 bytes, not {0}")]
    BlockSize(u32),
    /// The physical block size.
    #[error("the physical block size is a power of two from one to 128 logical blocks, not {0} bytes")]
    PhysicalBlockSize(u32),
    /// The optimal I/O size.
    #[error("the optimal I/O size is whole logical blocks, not {0} bytes")]
    OptimalIoSize(u32),
    /// The number of queues.
    #[error("there are 1 to 256 queues, not {0}")]
    Queues(u16),
    /// The serial number.
    #[error("a serial number is at most 20 characters of printable ASCII")]
    Serial,
}

impl Geometry {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn check(&self) -> Result<(), GeometryError> {
        if !matches!(self.block_size, 512 | 1024 | 2048 | 4096) {
            return Err(GeometryError::BlockSize(self.block_size));
        }
        let exponent = self.physical_block_size.checked_div(self.block_size).unwrap_or(0);
        if !self.physical_block_size.is_power_of_two() || !(1..=128).contains(&exponent) {
            return Err(GeometryError::PhysicalBlockSize(self.physical_block_size));
        }
        if !self.optimal_io_size.is_multiple_of(self.block_size) {
            return Err(GeometryError::OptimalIoSize(self.optimal_io_size));
        }
        if !(1..=256).contains(&self.queues) {
            return Err(GeometryError::Queues(self.queues));
        }
        if self.serial.len() > abi::VIRTIO_BLK_ID_BYTES as usize
            || !self.serial.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
        {
            return Err(GeometryError::Serial);
        }
        Ok(())
    }

    /// The device-type feature bits that a disk like this offers; those of the transport are not among them.
    #[must_use]
    pub fn features(&self, read_only: bool) -> u64 {
        let mut bits = vec![
            abi::VIRTIO_BLK_F_SIZE_MAX,
            abi::VIRTIO_BLK_F_SEG_MAX,
            abi::VIRTIO_BLK_F_BLK_SIZE,
            abi::VIRTIO_BLK_F_FLUSH,
            abi::VIRTIO_BLK_F_TOPOLOGY,
            abi::VIRTIO_BLK_F_CONFIG_WCE,
        ];
        if self.queues > 1 {
            bits.push(abi::VIRTIO_BLK_F_MQ);
        }
        if read_only {
            bits.push(abi::VIRTIO_BLK_F_RO);
        } else {
            bits.push(abi::VIRTIO_BLK_F_WRITE_ZEROES);
            if self.discard {
                bits.push(abi::VIRTIO_BLK_F_DISCARD);
            }
        }
        bits.iter().fold(0, |set, bit| set | 1u64 << bit)
    }

    /// Configuration space of a disk like this.
    pub(crate) fn config(&self, bytes: u64, writeback: bool) -> Config {
        let block_sectors = self.block_size / SECTOR as u32;
        let physical_block_exp =
            self.physical_block_size.checked_div(self.block_size).and_then(u32::checked_ilog2).unwrap_or(0);
        let blocks = |bytes: u32| bytes.checked_div(self.block_size).unwrap_or(0);
        Config {
            capacity: (bytes / SECTOR).into(),
            size_max: SIZE_MAX.into(),
            seg_max: SEG_MAX.into(),
            geometry: [0; 4],
            blk_size: self.block_size.into(),
            physical_block_exp: u8::try_from(physical_block_exp).unwrap_or(0),
            alignment_offset: 0,
            min_io_size: u16::try_from(blocks(self.physical_block_size)).unwrap_or(0).into(),
            opt_io_size: blocks(self.optimal_io_size).into(),
            writeback: writeback.into(),
            unused0: 0,
            num_queues: self.queues.into(),
            max_discard_sectors: MAX_RANGE_SECTORS.into(),
            max_discard_seg: MAX_RANGES.into(),
            discard_sector_alignment: block_sectors.into(),
            max_write_zeroes_sectors: MAX_RANGE_SECTORS.into(),
            max_write_zeroes_seg: MAX_RANGES.into(),
            write_zeroes_may_unmap: self.discard.into(),
            unused1: [0; 3],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offsets as in virtio 1.2 §5.2.4 and in Linux's `struct virtio_blk_config`.
    #[test]
    fn configuration_space_is_laid_out_as_the_specification_says() {
        let geometry =
            Geometry { block_size: 4096, queues: 3, optimal_io_size: 1 << 20, ..Geometry::default() };
        let config = geometry.config(0x1234_5678 * 4096, true);
        let bytes = config.as_bytes();
        let expected: [u8; 60] = {
            let mut bytes = [0; 60];
            bytes[0..8].copy_from_slice(&(0x1234_5678u64 * 8).to_le_bytes());
            bytes[8..12].copy_from_slice(&0x10_0000u32.to_le_bytes());
            bytes[12..16].copy_from_slice(&126u32.to_le_bytes());
            bytes[20..24].copy_from_slice(&4096u32.to_le_bytes());
            bytes[26..28].copy_from_slice(&1u16.to_le_bytes());
            bytes[28..32].copy_from_slice(&256u32.to_le_bytes());
            bytes[32] = 1;
            bytes[34..36].copy_from_slice(&3u16.to_le_bytes());
            bytes[36..40].copy_from_slice(&0x80_0000u32.to_le_bytes());
            bytes[40..44].copy_from_slice(&16u32.to_le_bytes());
            bytes[44..48].copy_from_slice(&8u32.to_le_bytes());
            bytes[48..52].copy_from_slice(&0x80_0000u32.to_le_bytes());
            bytes[52..56].copy_from_slice(&16u32.to_le_bytes());
            bytes[56] = 1;
            bytes
        };
        assert_eq!(bytes, expected);
        assert_eq!(Geometry::default().config(0, false).physical_block_exp, 3);
    }

    #[test]
    fn features_follow_what_the_disk_can_do() {
        let bit = |number: u32| 1u64 << number;
        let plain = Geometry::default().features(false);
        assert_eq!(plain & (bit(9) | bit(13) | bit(14)), bit(9) | bit(13) | bit(14));
        assert_eq!(plain & (bit(5) | bit(12)), 0);
        let read_only = Geometry { queues: 2, ..Geometry::default() }.features(true);
        assert_eq!(read_only & (bit(5) | bit(12) | bit(13) | bit(14)), bit(5) | bit(12));
        let dense = Geometry { discard: false, ..Geometry::default() };
        assert_eq!(dense.features(false) & (bit(13) | bit(14)), bit(14));
    }

    #[test]
    fn a_geometry_that_makes_no_sense_says_where() {
        let check = |change: fn(&mut Geometry)| {
            let mut geometry = Geometry::default();
            change(&mut geometry);
            geometry.check()
        };
        assert_eq!(check(|_| ()), Ok(()));
        assert_eq!(check(|it| it.block_size = 0), Err(GeometryError::BlockSize(0)));
        assert_eq!(check(|it| it.block_size = 8192), Err(GeometryError::BlockSize(8192)));
        assert_eq!(check(|it| it.physical_block_size = 256), Err(GeometryError::PhysicalBlockSize(256)));
        assert_eq!(
            check(|it| it.physical_block_size = 1 << 17),
            Err(GeometryError::PhysicalBlockSize(1 << 17))
        );
        assert_eq!(check(|it| it.optimal_io_size = 100), Err(GeometryError::OptimalIoSize(100)));
        assert_eq!(check(|it| it.queues = 0), Err(GeometryError::Queues(0)));
        assert_eq!(check(|it| it.queues = 257), Err(GeometryError::Queues(257)));
        assert_eq!(check(|it| it.serial = "x".repeat(21)), Err(GeometryError::Serial));
        assert_eq!(check(|it| it.serial = "ä".into()), Err(GeometryError::Serial));
        assert_eq!(check(|it| it.serial = "x".repeat(20)), Ok(()));
    }
}
