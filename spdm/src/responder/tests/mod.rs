//! Tests of the responder as a whole, against hand-written requester steps.

mod authentication;
mod connection;
mod device;
mod order;
mod session;
mod transfer;
mod versions;
