//! Telling people and programs what happened.

pub mod record;
