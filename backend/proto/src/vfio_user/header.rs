//! The 16 bytes before every payload, and how requests, replies and errors are put together.

use core::fmt;
use core::mem::size_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a message asks for. Open: a peer may send any value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(transparent)]
pub struct Command(U16);

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl Command {
            $($(#[$doc])* pub const $name: Self = Self::new($value);)*

            /// The protocol's name for it, without the `VFIO_USER_` prefix.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.get() {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

commands! {
    /// Negotiation; the first message of a connection.
    VERSION = 1;
    /// The client offers memory for DMA.
    DMA_MAP = 2;
    /// The client takes memory back.
    DMA_UNMAP = 3;
    /// How many regions and interrupt types there are.
    DEVICE_GET_INFO = 4;
    /// Size, flags and mappable areas of one region.
    DEVICE_GET_REGION_INFO = 5;
    /// Sub-regions with an ioeventfd; there are none here.
    DEVICE_GET_REGION_IO_FDS = 6;
    /// Count and flags of one interrupt type.
    DEVICE_GET_IRQ_INFO = 7;
    /// Arm, disarm, mask or trigger interrupts.
    DEVICE_SET_IRQS = 8;
    /// Read from a region.
    REGION_READ = 9;
    /// Write to a region.
    REGION_WRITE = 10;
    /// The server reads client memory.
    DMA_READ = 11;
    /// The server writes client memory.
    DMA_WRITE = 12;
    /// Reset of the device.
    DEVICE_RESET = 13;
    /// Several small region writes in one message.
    REGION_WRITE_MULTI = 15;
    /// `VFIO_DEVICE_FEATURE` of the kernel ABI.
    DEVICE_FEATURE = 16;
    /// Migration data; not offered here.
    MIG_DATA_READ = 17;
    /// Migration data; not offered here.
    MIG_DATA_WRITE = 18;
}

impl Command {
    /// The command with this code.
    #[must_use]
    pub const fn new(code: u16) -> Self {
        Self(U16::new(code))
    }

    /// Its code on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {}", self.get()),
        }
    }
}

/// Bits 0–3 of the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// A command.
    Command,
    /// The answer to one.
    Reply,
    /// A value the protocol does not define.
    Other(u8),
}

const TYPE_MASK: u32 = 0xF;
const TYPE_REPLY: u32 = 1;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// The header of every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Chosen by the sender of the command, echoed in its reply.
    pub message_id: U16,
    /// What is asked for; a reply repeats it.
    pub command: Command,
    /// Size of the whole message in bytes, this header included.
    pub message_size: U32,
    /// Type, `No_reply` and `Error`.
    pub flags: U32,
    /// The errno of a failed command.
    pub error: U32,
}

/// Size of [`Header`] in bytes.
pub const HEADER_SIZE: usize = size_of::<Header>();
const _: () = assert!(HEADER_SIZE == 16);

impl Header {
    /// The header at the start of `bytes`, `None` if they are fewer than [`HEADER_SIZE`].
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        Self::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Command or reply.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match self.flags.get() & TYPE_MASK {
            0 => MessageType::Command,
            TYPE_REPLY => MessageType::Reply,
            other => MessageType::Other(other.to_le_bytes()[0]),
        }
    }

    /// Whether the sender of this command wants no answer, not even an error.
    #[must_use]
    pub fn no_reply(&self) -> bool {
        self.flags.get() & NO_REPLY != 0
    }

    /// The errno of a reply that reports a failure. Zero is legal there and still a failure.
    #[must_use]
    pub fn failure(&self) -> Option<u32> {
        (self.flags.get() & ERROR != 0).then(|| self.error.get())
    }
}

fn put(out: &mut Vec<u8>, mut header: Header, parts: &[&[u8]]) {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    // Callers bound their payloads by MAX_MESSAGE_SIZE; a longer one would only confuse the peer, never us.
    header.message_size = U32::new(u32::try_from(HEADER_SIZE + payload).unwrap_or(u32::MAX));
    out.reserve(HEADER_SIZE + payload);
    out.extend_from_slice(header.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a command whose payload is `parts` one after the other.
pub fn put_request(out: &mut Vec<u8>, message_id: u16, command: Command, no_reply: bool, parts: &[&[u8]]) {
    let flags = U32::new(if no_reply { NO_REPLY } else { 0 });
    let header = Header {
        message_id: U16::new(message_id),
        command,
        message_size: U32::ZERO,
        flags,
        error: U32::ZERO,
    };
    put(out, header, parts);
}

/// Appends the successful reply to `request`.
pub fn put_reply(out: &mut Vec<u8>, request: &Header, parts: &[&[u8]]) {
    put(out, Header { flags: U32::new(TYPE_REPLY), error: U32::ZERO, ..*request }, parts);
}

/// Appends the reply that fails `request` with an errno: a header alone.
pub fn put_error(out: &mut Vec<u8>, request: &Header, errno: u32) {
    put(out, Header { flags: U32::new(TYPE_REPLY | ERROR), error: U32::new(errno), ..*request }, &[]);
}
