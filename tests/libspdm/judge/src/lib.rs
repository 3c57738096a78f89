//! Our SPDM roles against libspdm's, over whole DOE objects: what a run negotiates, and both of its ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod case;
mod device;
pub mod emu;
mod reference;
mod tally;

pub use case::{Case, Dice, NAME, REQUESTER_FLAGS, RESPONDER_FLAGS, cases, material};
pub use device::{Device, responder_config};
pub use reference::{
    KeyPair, Measured, Peer, RESET_REQUIRED, Reference, Subscribed, sample_key, sample_root, with_psk,
};
pub use tally::{Tally, only_case, walks};

/// The first bytes of a message, and its length, for logs.
fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(200).map(|byte| format!("{byte:02x}")).collect();
    format!("{shown} ({})", bytes.len())
}
