//! Tests of the responder as a whole.
