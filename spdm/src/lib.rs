//! See the crate's Cargo.toml.
#![forbid(unsafe_code)]
