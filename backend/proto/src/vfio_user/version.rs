//! VERSION: two numbers and an optional, NUL-terminated JSON text with capabilities.

use core::mem::size_of;

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{DecodeError, MAX_DATA_XFER_SIZE, MAX_DMA_MAPS, MAX_MSG_FDS};

/// Most descriptors a peer may claim to take with one message; the kernel carries fewer, so that more is a mistake.
const MAX_CLAIMED_FDS: u64 = 1024;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawVersion {
    major: U16,
    minor: U16,
}
const _: () = assert!(size_of::<RawVersion>() == 4);

/// What one side can do. A missing field means the protocol's default; unknown fields are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Most descriptors the sender takes with one message; default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_msg_fds: Option<u64>,
    /// Most data bytes of one read or write; default 1 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_data_xfer_size: Option<u64>,
    /// Most DMA mappings at once; default 65,535.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_dma_maps: Option<u64>,
    /// Page sizes of DMA mappings or'ed together; default 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgsizes: Option<u64>,
    /// Whether REGION_WRITE_MULTI may be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_multiple: Option<bool>,
}

impl Capabilities {
    /// A server's answer to a client's proposal: its own limits, and of the optional features those both sides have.
    #[must_use]
    pub fn answer(proposal: &Self) -> Self {
        Self {
            max_msg_fds: Some(MAX_MSG_FDS as u64),
            max_data_xfer_size: Some(u64::from(MAX_DATA_XFER_SIZE)),
            max_dma_maps: Some(MAX_DMA_MAPS as u64),
            pgsizes: Some(4096),
            write_multiple: proposal.write_multiple.filter(|wanted| *wanted),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct VersionData {
    #[serde(default)]
    capabilities: Capabilities,
}

/// Whether what a peer says of migration makes sense. It is not offered here, and nothing of it is kept.
fn migration_makes_sense(text: &[u8]) -> bool {
    let Ok(data) = serde_json::from_slice::<serde_json::Value>(text) else { return false };
    let Some(migration) = data.pointer("/capabilities/migration") else { return true };
    migration.is_object() && migration.get("pgsize").is_none_or(serde_json::Value::is_u64)
}

/// The payload of VERSION, request and reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Must be the same on both sides.
    pub major: u16,
    /// The reply's may not exceed the request's.
    pub minor: u16,
    /// Empty if the peer sent no JSON.
    pub capabilities: Capabilities,
}

impl Version {
    /// Parses a payload. Version data may be absent, and may be `{}`.
    ///
    /// # Errors
    /// [`DecodeError::Length`] without the two numbers, [`DecodeError::VersionData`] for text that is not
    /// NUL-terminated JSON of the right types, or claims more descriptors than a message can carry.
    pub fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let (raw, data) = RawVersion::ref_from_prefix(payload).map_err(|_| DecodeError::Length)?;
        let capabilities = if data.is_empty() {
            Capabilities::default()
        } else {
            let text = data.strip_suffix(&[0]).ok_or(DecodeError::VersionData)?;
            let data: VersionData = serde_json::from_slice(text).map_err(|_| DecodeError::VersionData)?;
            let too_many = data.capabilities.max_msg_fds.is_some_and(|fds| fds > MAX_CLAIMED_FDS);
            if too_many || !migration_makes_sense(text) {
                return Err(DecodeError::VersionData);
            }
            data.capabilities
        };
        Ok(Self { major: raw.major.get(), minor: raw.minor.get(), capabilities })
    }

    /// The payload, its JSON NUL-terminated.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let raw = RawVersion { major: U16::new(self.major), minor: U16::new(self.minor) };
        let mut out = raw.as_bytes().to_vec();
        let data = VersionData { capabilities: self.capabilities.clone() };
        // Serializing plain numbers and booleans into memory cannot fail; a peer takes absent data for the defaults.
        if let Ok(text) = serde_json::to_vec(&data) {
            out.extend_from_slice(&text);
            out.push(0);
        }
        out
    }
}
