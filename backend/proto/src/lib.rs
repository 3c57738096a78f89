//! What both ends of our sockets share: message formats only, no I/O, no state.
#![forbid(unsafe_code)]

pub mod control;
pub mod frame;
pub mod vfio_user;
