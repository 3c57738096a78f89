//! Why a request gets an ERROR, and what a handler wants done after its response: `?` in a handler ends here.

use crate::codec::{DecodeError, EncodeError};
use crate::crypto::{CryptoError, Digest};
use crate::wire::{Code, ErrorCode, NotReady, Version};

use super::EndReason;

/// A request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reject {
    /// Answered by ERROR.
    Error { code: ErrorCode, data: u8 },
    /// Answered by ERROR in a version that is not agreed on yet.
    InVersion(Version, ErrorCode),
    /// Answered by ERROR with the size the response would have had.
    TooLarge(u32),
    /// Answered by ERROR, from 1.4 on with the size of the chain that the request's form cannot transfer.
    ChainTooLong(u32),
    /// Answered by ERROR; RESPOND_IF_READY will ask again.
    NotReady(NotReady),
    /// Answered by ERROR, and the session the request belongs to is gone.
    Fatal(ErrorCode),
    /// Not answered.
    Silent,
}

impl Reject {
    pub(super) const INVALID: Self = Self::error(ErrorCode::INVALID_REQUEST);
    pub(super) const UNEXPECTED: Self = Self::error(ErrorCode::UNEXPECTED_REQUEST);
    pub(super) const RESYNCH: Self = Self::error(ErrorCode::REQUEST_RESYNCH);
    pub(super) const SESSION_REQUIRED: Self = Self::error(ErrorCode::SESSION_REQUIRED);

    pub(super) const fn error(code: ErrorCode) -> Self {
        Self::Error { code, data: 0 }
    }

    pub(super) const fn unsupported(request: Code) -> Self {
        Self::Error { code: ErrorCode::UNSUPPORTED_REQUEST, data: request.0 }
    }
}

impl From<DecodeError> for Reject {
    fn from(_: DecodeError) -> Self {
        Self::INVALID
    }
}

/// A response field that does not fit is the responder's own trouble, as is its cryptography.
impl From<EncodeError> for Reject {
    fn from(_: EncodeError) -> Self {
        Self::error(ErrorCode::UNSPECIFIED)
    }
}

impl From<CryptoError> for Reject {
    fn from(_: CryptoError) -> Self {
        Self::error(ErrorCode::UNSPECIFIED)
    }
}

/// What happens once the response has been protected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    /// Nothing.
    Stay,
    /// The session switches to its application keys: TH2.
    Establish(usize, Digest),
    /// The session ends.
    End(EndReason),
    /// There is no response.
    Silent,
}

/// Result of every handler.
pub(super) type Handled = Result<Next, Reject>;
