//! Data Object Exchange from the host's side: the mailbox's registers, and what a mailbox says it speaks.

pub mod discovery;
pub mod mailbox;

pub use mailbox::Mailbox;
