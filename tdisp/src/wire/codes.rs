//! Code points of TDISP: message codes, error codes, TDI states, registries. Open newtypes: a peer may send
//! any value, and an unknown one keeps its number.

use core::fmt;

/// The only TDISP version there is: 1.0 (PCIe 6.1 §11.3 "TDISP_VERSION").
pub const VERSION_1_0: u8 = 0x10;

/// A TDISP message code (PCIe 6.1 §11.3). Requests have bit 7 set; the response to a request has it clear.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageCode(pub u8);

macro_rules! open_codes {
    ($name:ident: $repr:ty, $width:literal { $($(#[$doc:meta])* $constant:ident = $value:literal,)* }) => {
        impl $name {
            $($(#[$doc])* pub const $constant: Self = Self($value);)*

            /// The specification's name of this value, if it has one.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($constant)),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!("{:#0", $width, "x}"), self.0),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl From<$repr> for $name {
            fn from(value: $repr) -> Self {
                Self(value)
            }
        }
    };
}

open_codes!(MessageCode: u8, 4 {
    /// TDISP_VERSION response.
    VERSION = 0x01,
    /// TDISP_CAPABILITIES response.
    CAPABILITIES = 0x02,
    /// LOCK_INTERFACE_RESPONSE.
    LOCK_INTERFACE_RESPONSE = 0x03,
    /// DEVICE_INTERFACE_REPORT response.
    DEVICE_INTERFACE_REPORT = 0x04,
    /// DEVICE_INTERFACE_STATE response.
    DEVICE_INTERFACE_STATE = 0x05,
    /// START_INTERFACE_RESPONSE.
    START_INTERFACE_RESPONSE = 0x06,
    /// STOP_INTERFACE_RESPONSE.
    STOP_INTERFACE_RESPONSE = 0x07,
    /// BIND_P2P_STREAM_RESPONSE.
    BIND_P2P_STREAM_RESPONSE = 0x08,
    /// UNBIND_P2P_STREAM_RESPONSE.
    UNBIND_P2P_STREAM_RESPONSE = 0x09,
    /// SET_MMIO_ATTRIBUTE_RESPONSE.
    SET_MMIO_ATTRIBUTE_RESPONSE = 0x0A,
    /// VDM_RESPONSE.
    VDM_RESPONSE = 0x0B,
    /// TDISP_ERROR, the answer to any request that was refused.
    TDISP_ERROR = 0x7F,
    /// GET_TDISP_VERSION request.
    GET_TDISP_VERSION = 0x81,
    /// GET_TDISP_CAPABILITIES request.
    GET_TDISP_CAPABILITIES = 0x82,
    /// LOCK_INTERFACE_REQUEST.
    LOCK_INTERFACE_REQUEST = 0x83,
    /// GET_DEVICE_INTERFACE_REPORT request.
    GET_DEVICE_INTERFACE_REPORT = 0x84,
    /// GET_DEVICE_INTERFACE_STATE request.
    GET_DEVICE_INTERFACE_STATE = 0x85,
    /// START_INTERFACE_REQUEST.
    START_INTERFACE_REQUEST = 0x86,
    /// STOP_INTERFACE_REQUEST.
    STOP_INTERFACE_REQUEST = 0x87,
    /// BIND_P2P_STREAM_REQUEST (optional).
    BIND_P2P_STREAM_REQUEST = 0x88,
    /// UNBIND_P2P_STREAM_REQUEST (optional).
    UNBIND_P2P_STREAM_REQUEST = 0x89,
    /// SET_MMIO_ATTRIBUTE_REQUEST (optional).
    SET_MMIO_ATTRIBUTE_REQUEST = 0x8A,
    /// VDM_REQUEST (optional).
    VDM_REQUEST = 0x8B,
});

impl MessageCode {
    /// The response code that answers this request: bit 7 cleared.
    pub const fn response(self) -> Self {
        Self(self.0 & 0x7F)
    }

    /// Whether bit 7 marks this code as a request.
    pub const fn is_request(self) -> bool {
        self.0 & 0x80 != 0
    }
}

/// ERROR_CODE of a TDISP_ERROR (PCIe 6.1 §11.3 "TDISP_ERROR").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub u32);

open_codes!(ErrorCode: u32, 6 {
    /// A field or the length is malformed, or the IDE stream is not ready for LOCK.
    INVALID_REQUEST = 0x01,
    /// Try again later.
    BUSY = 0x03,
    /// The message is not legal in the TDI's current state.
    INVALID_INTERFACE_STATE = 0x04,
    /// Any other failure.
    UNSPECIFIED = 0x05,
    /// The request code is not implemented; ERROR_DATA holds it.
    UNSUPPORTED_REQUEST = 0x07,
    /// The header's version is not offered.
    VERSION_MISMATCH = 0x41,
    /// Defined by a vendor; extended error data follows.
    VENDOR_SPECIFIC_ERROR = 0xFF,
    /// FUNCTION_ID names no interface that this DSM hosts.
    INVALID_INTERFACE = 0x101,
    /// START carried another nonce than LOCK handed out.
    INVALID_NONCE = 0x102,
    /// No nonce could be generated.
    INSUFFICIENT_ENTROPY = 0x103,
    /// The function's configuration cannot be locked.
    INVALID_DEVICE_CONFIGURATION = 0x104,
});

/// TDI_STATE (PCIe 6.1 §11.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TdiState(pub u8);

open_codes!(TdiState: u8, 4 {
    /// Not assigned to a TVM; anyone may configure it.
    CONFIG_UNLOCKED = 0,
    /// Configuration frozen, waiting for the TVM to accept it.
    CONFIG_LOCKED = 1,
    /// In use by a TVM.
    RUN = 2,
    /// Trust is lost; only STOP or a reset leads out.
    ERROR = 3,
});

/// Which registry a vendor id belongs to (VDM and vendor-specific errors).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RegistryId(pub u8);

open_codes!(RegistryId: u8, 4 {
    /// PCI-SIG vendor ids.
    PCI_SIG = 0,
    /// CXL.
    CXL = 1,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_keep_their_number() {
        assert_eq!(MessageCode(0xC3).to_string(), "0xc3");
        assert_eq!(ErrorCode(0x123).to_string(), "0x0123");
        assert_eq!(TdiState(9).to_string(), "0x09");
        assert_eq!(MessageCode::STOP_INTERFACE_REQUEST.to_string(), "STOP_INTERFACE_REQUEST");
    }

    #[test]
    fn response_codes_are_the_request_codes_without_bit_7() {
        assert_eq!(MessageCode::GET_TDISP_VERSION.response(), MessageCode::VERSION);
        assert_eq!(MessageCode::VDM_REQUEST.response(), MessageCode::VDM_RESPONSE);
        assert!(MessageCode(0x80).is_request() && !MessageCode::TDISP_ERROR.is_request());
    }
}
