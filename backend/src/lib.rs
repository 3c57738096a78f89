//! tdispd: a TDISP-capable PCIe device, as a process.
//!
//! The cores `spdm`, `tdisp`, `mmio` and `disk` know nothing of each other; here they become one device. [`device`] composes
//! them and is itself free of sockets and clocks; [`vfio_user`], [`vhost_user`], [`spdm_socket`] and [`control`] are the ways in;
//! [`daemon`] is the loop around all of them.

pub mod bars;
pub mod certs;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod device;
pub mod doe;
pub mod function;
pub mod key_pairs;
pub mod log_limit;
pub mod pci;
pub mod spdm_socket;
pub mod state_dir;
pub mod udmabuf;
pub mod vfio_user;
pub mod vhost_user;

mod clock;
