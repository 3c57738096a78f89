//! Where each register of the IDE capability lies: the configuration it follows from, and the map from an
//! offset to a register (PCIe 6.1 §7.9.26 "IDE Extended Capability").

use thiserror::Error;

use super::registers::Capability;

/// Extended capability id of IDE.
pub const CAPABILITY_ID: u16 = 0x30;

const CAPABILITY: u16 = 0x04;
const CONTROL: u16 = 0x08;
const BLOCKS: u16 = 0x0C;
const LINK_BLOCK: u16 = 8;
const SELECTIVE_BLOCK: u16 = 20;
const ADDRESS_BLOCK: u16 = 12;

/// Extended configuration space: everything above the first 256 bytes.
const SPACE: u32 = 4096 - 256;

/// When a stream's status turns to secure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecureOrder {
    /// As soon as the stream is enabled and has its six keys in use, whichever comes last. Serves both the
    /// kernel, which enables last and reads the status at once, and software that enables first.
    #[default]
    Either,
    /// Only by a write that sets Enable when the six keys are in use already.
    AtEnable,
    /// Only by the last K_SET_GO, when Enable is set already.
    AtLastGo,
    /// By the last K_SET_GO, whatever Enable says: for requesters without access to configuration space.
    WithoutEnable,
}

/// What the IDE capability offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdeConfig {
    /// Number of link streams, 0 to 8.
    pub link_streams: u8,
    /// Number of selective streams, 0 to 255.
    pub selective_streams: u8,
    /// Address association blocks of every selective stream, 0 to 15; the same for all, as Linux wants it.
    pub address_blocks: u8,
    /// Offer flow-through streams.
    pub flow_through: bool,
    /// Offer partial header encryption.
    pub partial_header_encryption: bool,
    /// Offer aggregation.
    pub aggregation: bool,
    /// Offer PCRC.
    pub pcrc: bool,
    /// Offer IDE_KM. Without it every key management object is discarded.
    pub key_management: bool,
    /// Offer configuration requests through a selective stream.
    pub selective_for_configuration: bool,
    /// Offer TEE-limited streams.
    pub tee_limited: bool,
    /// When a stream becomes secure.
    pub secure_order: SecureOrder,
}

impl Default for IdeConfig {
    fn default() -> Self {
        Self {
            link_streams: 0,
            selective_streams: 1,
            address_blocks: 1,
            flow_through: false,
            partial_header_encryption: false,
            aggregation: false,
            pcrc: false,
            key_management: true,
            selective_for_configuration: true,
            tee_limited: true,
            secure_order: SecureOrder::Either,
        }
    }
}

/// A configuration that no IDE capability can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IdeConfigError {
    /// No stream at all.
    #[error("IDE needs at least one stream")]
    NoStream,
    /// More than eight link streams.
    #[error("{0} link streams; there can be 8 at most")]
    LinkStreams(u8),
    /// More than fifteen address association blocks.
    #[error("{0} address association blocks; there can be 15 at most")]
    AddressBlocks(u8),
    /// The capability does not fit extended configuration space.
    #[error("the IDE capability would be {0} bytes long; extended configuration space has {SPACE}")]
    TooLong(u32),
}

/// One stream: its kind, and its index among those of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StreamIndex {
    /// The n-th link stream.
    Link(u8),
    /// The n-th selective stream.
    Selective(u8),
}

impl core::fmt::Display for StreamIndex {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Link(index) => write!(f, "link stream {index}"),
            Self::Selective(index) => write!(f, "selective stream {index}"),
        }
    }
}

/// A register of the capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    Capability,
    Control,
    StreamControl(StreamIndex),
    StreamStatus(StreamIndex),
    SelectiveCapability,
    Rid1(u8),
    Rid2(u8),
    Address { stream: u8, block: u8, word: AddressWord },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressWord {
    One,
    LimitUpper,
    BaseUpper,
}

impl IdeConfig {
    pub(super) fn check(&self) -> Result<(), IdeConfigError> {
        if self.link_streams == 0 && self.selective_streams == 0 {
            return Err(IdeConfigError::NoStream);
        }
        if self.link_streams > 8 {
            return Err(IdeConfigError::LinkStreams(self.link_streams));
        }
        if self.address_blocks > 15 {
            return Err(IdeConfigError::AddressBlocks(self.address_blocks));
        }
        let length = self.length_u32();
        if length > SPACE {
            return Err(IdeConfigError::TooLong(length));
        }
        Ok(())
    }

    /// Length of the capability in bytes, its 4-byte header included.
    pub fn length(&self) -> u16 {
        u16::try_from(self.length_u32()).unwrap_or(u16::MAX)
    }

    fn length_u32(&self) -> u32 {
        u32::from(BLOCKS)
            + u32::from(self.link_streams) * u32::from(LINK_BLOCK)
            + u32::from(self.selective_streams) * u32::from(self.selective_block())
    }

    fn selective_block(&self) -> u16 {
        SELECTIVE_BLOCK + u16::from(self.address_blocks) * ADDRESS_BLOCK
    }

    pub(super) fn capability(&self) -> Capability {
        Capability::new()
            .with_link(self.link_streams > 0)
            .with_selective(self.selective_streams > 0)
            .with_flow_through(self.flow_through)
            .with_partial_header_encryption(self.partial_header_encryption)
            .with_aggregation(self.aggregation)
            .with_pcrc(self.pcrc)
            .with_key_management(self.key_management)
            .with_selective_for_configuration(self.selective_for_configuration)
            .with_link_tc_count(self.link_streams.saturating_sub(1) & 7)
            .with_selective_count(self.selective_streams.saturating_sub(1))
            .with_tee_limited(self.tee_limited)
    }

    /// Offset of a stream's control register from the start of the capability, if there is such a stream.
    pub fn stream_control_offset(&self, stream: StreamIndex) -> Option<u16> {
        let links = BLOCKS + u16::from(self.link_streams) * LINK_BLOCK;
        match stream {
            StreamIndex::Link(index) => {
                (index < self.link_streams).then(|| BLOCKS + u16::from(index) * LINK_BLOCK)
            }
            StreamIndex::Selective(index) => (index < self.selective_streams)
                .then(|| links + u16::from(index) * self.selective_block() + 4),
        }
    }

    /// The register whose doubleword starts at `offset`, a multiple of four.
    pub(super) fn register_at(&self, offset: u16) -> Option<Register> {
        match offset {
            CAPABILITY => return Some(Register::Capability),
            CONTROL => return Some(Register::Control),
            _ => {}
        }
        let after_head = offset.checked_sub(BLOCKS)?;
        let links = u16::from(self.link_streams) * LINK_BLOCK;
        let Some(after_links) = after_head.checked_sub(links) else {
            let stream = StreamIndex::Link(u8::try_from(after_head / LINK_BLOCK).ok()?);
            return Some(match after_head % LINK_BLOCK {
                0 => Register::StreamControl(stream),
                _ => Register::StreamStatus(stream),
            });
        };
        let index = u8::try_from(after_links / self.selective_block()).ok()?;
        if index >= self.selective_streams {
            return None;
        }
        let inside = after_links % self.selective_block();
        Some(match inside {
            0 => Register::SelectiveCapability,
            4 => Register::StreamControl(StreamIndex::Selective(index)),
            8 => Register::StreamStatus(StreamIndex::Selective(index)),
            12 => Register::Rid1(index),
            16 => Register::Rid2(index),
            _ => {
                let inside = inside.checked_sub(SELECTIVE_BLOCK)?;
                Register::Address {
                    stream: index,
                    block: u8::try_from(inside / ADDRESS_BLOCK).ok()?,
                    word: match inside % ADDRESS_BLOCK {
                        0 => AddressWord::One,
                        4 => AddressWord::LimitUpper,
                        _ => AddressWord::BaseUpper,
                    },
                }
            }
        })
    }
}
