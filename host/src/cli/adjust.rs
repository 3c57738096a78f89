//! Commands for a running interface: the optional messages of TDISP, and fresh keys.

use clap::{Args, Subcommand, ValueEnum};

use super::{HexBytes, hex, number};

/// Streams to peers.
#[derive(Debug, Clone, Subcommand)]
pub enum P2pCommand {
    /// Program, key and enable a selective stream of its own for a peer
    Key {
        /// Stream id
        #[arg(value_parser = number::<u8>)]
        stream_id: u8,
        /// First and last requester id of the peer, e.g. 0x300 0x307 (default: none is associated)
        #[arg(long, num_args = 2, value_names = ["FIRST", "LAST"], value_parser = number::<u16>)]
        requester: Option<Vec<u16>>,
    },
    /// BIND_P2P_STREAM: use the stream for DMA to the peer
    Bind {
        /// Stream id
        #[arg(value_parser = number::<u8>)]
        stream_id: u8,
    },
    /// UNBIND_P2P_STREAM
    Unbind {
        /// Stream id
        #[arg(value_parser = number::<u8>)]
        stream_id: u8,
    },
}

/// What SET_MMIO_ATTRIBUTE is to do.
#[derive(Debug, Clone, Args)]
pub struct AttributeArgs {
    /// BAR of the pages
    #[arg(value_parser = clap::value_parser!(u8).range(0..6))]
    pub bar: u8,
    /// First byte of the pages in the BAR, a multiple of 4096
    #[arg(value_parser = number::<u64>)]
    pub offset: u64,
    /// Number of 4 KiB pages
    #[arg(value_parser = number::<u32>)]
    pub pages: u32,
    /// What they become
    #[arg(value_enum)]
    pub side: Side,
}

/// Who may access a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Anybody (IS_NON_TEE_MEM)
    Shared,
    /// The TVM only
    Private,
}

/// A vendor's message.
#[derive(Debug, Clone, Args)]
pub struct VdmArgs {
    /// The vendor's bytes, e.g. 00cafe; tdispd's vendor echoes what begins with 00
    #[arg(value_parser = hex)]
    pub data: HexBytes,
    /// PCI-SIG vendor id
    #[arg(long, value_name = "ID", default_value = "0x1234", value_parser = number::<u16>)]
    pub vendor: u16,
}
