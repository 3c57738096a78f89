//! The responder: bytes in, bytes and events out.

mod config;

pub use config::*;
