//! What the tests share.

pub mod control;
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod rig;
pub mod scenario;
pub mod spdm_socket;
pub mod virtio;
