//! What the other side may send, as bytes: one plain function per interface, which panics when something that must hold
//! whatever comes does not. `tests/tests/corpus.rs` replays the corpus through them, `tests/fuzz` hands them to libFuzzer.

pub mod control;
pub mod cxl;
pub mod device;
pub mod disk;
pub mod dsm;
pub mod guest;
mod peer;
pub mod requester;
pub mod responder;
mod script;
pub mod seeds;
pub mod vfio_user;
pub mod wire;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, that of its corpus directory and of its libFuzzer program.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// How many variants of each corpus file `cargo test` tries: few where one input takes milliseconds.
    pub variants: usize,
}

const fn target(name: &'static str, run: fn(&[u8]), variants: usize) -> Target {
    Target { name, run, variants }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    target("certificate_chain", wire::certificate_chain, 120),
    target("config_toml", wire::config_toml, 200),
    target("control_request", control::control_request, 100),
    target("cxl_message", cxl::cxl_message, 600),
    target("device_traffic", device::device_traffic, 40),
    target("disk_queue", disk::disk_queue, 400),
    target("doe_object", wire::doe_object, 1000),
    target("guest_message", guest::guest_message, 400),
    target("ide_km_object", dsm::ide_km_object, 600),
    target("interface_report", wire::interface_report, 1000),
    target("session_file", requester::session_file, 120),
    target("spdm_frame", wire::spdm_frame, 1000),
    target("spdm_man_in_the_middle", requester::spdm_man_in_the_middle, 60),
    target("spdm_requester", requester::spdm_requester, 60),
    target("spdm_responder_clear", responder::spdm_responder_clear, 120),
    target("spdm_responder_in_session", responder::spdm_responder_in_session, 60),
    target("tdisp_message", dsm::tdisp_message, 600),
    target("vfio_user_connection", vfio_user::vfio_user_connection, 400),
];
