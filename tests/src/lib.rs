//! What the tests share.

pub mod guest;
pub mod host;
pub mod rig;
