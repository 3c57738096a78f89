//! The host side of TDISP: a requester that walks a device from DOE discovery to RUN, and checks it on the way.
//!
//! `cli` says what can be asked for, `walk` does it, over a `transport`; `output` tells what happened. `control` is the other
//! way in: a device process looked at from the side.

pub mod cli;
pub mod clock;
pub mod control;
pub mod doe;
pub mod error;
pub mod guest;
mod mapping;
pub mod output;
pub mod pci;
pub mod session_file;
pub mod shell;
pub mod transport;
pub mod tsm;
pub mod vmm;
pub mod walk;
