//! SPDM 1.0 to 1.4 without I/O: messages, cryptography, the responder and the requester.
//!
//! Bytes and time go in; bytes and events come out. The crate opens no socket, starts no thread and reads no
//! clock. What belongs here: DSP0274 (SPDM), DSP0277 (secured messages) and the data objects of PCIe 6.1 §6.30
//! that carry both. What a vendor-defined payload means does not.
#![forbid(unsafe_code)]

mod chains;
pub mod codec;
pub mod crypto;
mod der;
pub mod doe;
pub mod identity;
pub mod key_schedule;
pub mod psk;
pub mod requester;
pub mod responder;
pub mod secured;
pub mod session;
pub mod slot;
pub mod transcript;
pub mod trust;
pub mod wire;

/// Identifies a secure session on the wire: low half chosen by the requester, high half by the responder
/// (DSP0277 "Session ID").
pub type SessionId = u32;
