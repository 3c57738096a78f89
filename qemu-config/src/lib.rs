//! Everything that launches QEMU: the testbed's parts, initramfs images, command lines, running guests, and the daemon beside them.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod daemon;
pub mod guest;
pub mod initramfs;
pub mod kbuild;
pub mod machine;
pub mod modules;
pub mod nested;
pub mod programs;
pub mod qmp;
pub mod reproduce;
pub mod shell;
pub mod testbed;

mod child;
mod console;

pub use daemon::Daemon;
pub use guest::{Guest, GuestError};
pub use initramfs::Initramfs;
pub use machine::{Accelerator, Machine, Slot};
pub use nested::Nested;
pub use programs::Programs;
pub use shell::Output;
pub use testbed::Testbed;
