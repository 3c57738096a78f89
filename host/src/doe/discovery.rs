//! DOE discovery: which data objects a mailbox speaks.
