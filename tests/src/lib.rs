//! See the crate's Cargo.toml.
pub mod guest;
