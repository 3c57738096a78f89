//! SHA-3 by RustCrypto, for `ring`, which does not have it.

use super::{Digest, Hasher};

/// A SHA-3 algorithm.
pub(super) fn hasher<H: sha3::Digest + Clone + Send + 'static>() -> Box<dyn Hasher> {
    Box::new(Running(H::new()))
}

struct Running<H>(H);

impl<H: sha3::Digest + Clone + Send + 'static> Hasher for Running<H> {
    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn fork(&self) -> Box<dyn Hasher> {
        Box::new(Self(self.0.clone()))
    }

    fn digest(&self) -> Digest {
        Digest::new(&self.0.clone().finalize())
    }
}
