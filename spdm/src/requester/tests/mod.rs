//! The requester against a peer that can be made to misbehave, and against the crate's own responder.

mod events;
mod evidence;
mod hostile;
mod interruptions;
mod peer;
mod sessions;
mod transfer;
mod walk;
