//! See the crate's Cargo.toml.
pub mod function;
pub mod vfio_user;
