//! What the tests share.

pub mod control;
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod rig;
#[path = "../../disk/tests/driver/ring.rs"]
pub mod ring;
pub mod scenario;
pub mod spdm_socket;
pub mod vhost_client;
pub mod virtio;
