//! Against the crate's own responder.
