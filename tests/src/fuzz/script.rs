//! Input of a target that takes events: a cursor whose values are zero once the bytes are used up, and its counterpart for
//! making seeds.

/// The events that are left.
pub(super) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next event's number, `None` at the end.
    pub(super) fn event(&mut self) -> Option<u8> {
        (!self.0.is_empty()).then(|| self.byte())
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let (now, later) = self.0.split_at(self.0.len().min(N));
        out.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        self.0 = later;
        out
    }

    pub(super) fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// Bytes behind their 16-bit length: fewer if there are fewer, at most `most`.
    pub(super) fn sized(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.u16()).min(most).min(self.0.len());
        let (now, later) = self.0.split_at(length);
        self.0 = later;
        now
    }
}

/// Appends what [`Script::sized`] reads.
pub(super) fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}
