//! One list of sample messages, shared by all decoder tests.
