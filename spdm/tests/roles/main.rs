//! Our requester against our responder, both whole: what either role's own tests cannot see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod algorithms;
mod deceit;
mod deferral;
mod empty_slots;
mod endpoints;
mod events;
mod limits;
mod mutual;
mod pair;
#[cfg(feature = "aws-lc")]
mod post_quantum;
mod provision;
mod psk;
mod psk_hostile;
mod questions;
mod several;
mod slots;
mod transfer;
mod v1_4;
