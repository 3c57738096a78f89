//! Tests of the responder as a whole, against hand-written requester steps.

mod alias;
mod authentication;
mod connection;
mod deferral;
mod device;
mod events;
mod order;
mod provision;
mod psk;
mod session;
mod slot_management;
mod transfer;
mod v1_4;
mod versions;
