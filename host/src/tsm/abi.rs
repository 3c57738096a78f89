//! What the kernel module and this program share: `host/kmod/tdispd_tsm.h`, in Rust. A test holds the two against each other.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `TDISPD_TSM_ABI`
pub(super) const ABI: i32 = 1;
/// `TDISPD_TSM_MAX`
pub(crate) const MAX: usize = 65536;

/// `TDISPD_TSM_CONNECT`
pub(super) const CONNECT: u32 = 1;
/// `TDISPD_TSM_DISCONNECT`
pub(super) const DISCONNECT: u32 = 2;
/// `TDISPD_TSM_BIND`
pub(super) const BIND: u32 = 3;
/// `TDISPD_TSM_UNBIND`
pub(super) const UNBIND: u32 = 4;
/// `TDISPD_TSM_GUEST`
pub(super) const GUEST: u32 = 5;

/// `TDISPD_TSM_STREAM`
pub(super) const STREAM: u32 = 1;

/// `TDISPD_TSM_GUEST_STATE`
pub(super) const GUEST_STATE: u32 = 1;
/// `TDISPD_TSM_GUEST_REPORT`
pub(super) const GUEST_REPORT: u32 = 2;
/// `TDISPD_TSM_GUEST_START`
pub(super) const GUEST_START: u32 = 3;
/// `TDISPD_TSM_GUEST_SEALED`
pub(super) const GUEST_SEALED: u32 = 4;

/// `PCI_TSM_REQ_STATE_CHANGE`: the scope of requests that may change a TDI's state.
pub(super) const STATE_CHANGE: u32 = 1;

/// `struct tdispd_tsm_request`
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Request {
    pub(super) cookie: u64,
    pub(super) op: u32,
    pub(super) flags: u32,
    pub(super) timeout_ms: u32,
    pub(super) tdi_id: u32,
    pub(super) scope: u32,
    pub(super) payload_len: u32,
    pub(super) response_len: u32,
    pub(super) segment: u16,
    pub(super) function: u16,
    pub(super) dsm: u16,
    pub(super) stream_id: u8,
    pub(super) reserved: [u8; 5],
}

/// `struct tdispd_tsm_answer`
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Answer {
    pub(super) cookie: u64,
    pub(super) code: u64,
    pub(super) error: i32,
    pub(super) payload_len: u32,
}

/// `struct tdispd_tsm_doe`
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Doe {
    pub(super) cookie: u64,
    pub(super) request: u64,
    pub(super) response: u64,
    pub(super) request_len: u32,
    pub(super) response_len: u32,
    pub(super) r#type: u32,
    pub(super) reserved: u32,
}

/// `struct tdispd_tsm_bind`
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Bind {
    pub(super) vm_fd: i32,
    pub(super) tdi_id: u32,
    pub(super) segment: u16,
    pub(super) function: u16,
    pub(super) reserved: u32,
}

/// `struct tdispd_tsm_guest`
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Guest {
    pub(super) request: u64,
    pub(super) response: u64,
    pub(super) code: u64,
    pub(super) request_len: u32,
    pub(super) response_len: u32,
    pub(super) scope: u32,
    pub(super) reserved: u32,
}

/// The ioctls.
pub(super) mod ioctl {
    use super::{Bind, Doe, Guest};

    nix::ioctl_none!(
        /// `TDISPD_TSM_VERSION`
        version,
        0xe7,
        0
    );
    nix::ioctl_none!(
        /// `TDISPD_TSM_SERVE`
        serve,
        0xe7,
        1
    );
    nix::ioctl_readwrite!(
        /// `TDISPD_TSM_DOE`
        doe,
        0xe7,
        2,
        Doe
    );
    nix::ioctl_write_ptr!(
        /// `TDISPD_TSM_BIND_VM`
        bind_vm,
        0xe7,
        3,
        Bind
    );
    nix::ioctl_none!(
        /// `TDISPD_TSM_UNBIND_VM`
        unbind_vm,
        0xe7,
        4
    );
    nix::ioctl_readwrite!(
        /// `TDISPD_TSM_GUEST_REQ`
        guest_req,
        0xe7,
        5,
        Guest
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    const HEADER: &str = include_str!("../../kmod/tdispd_tsm.h");

    /// Fields of a structure of the header with their offsets, and its size; every field has its natural alignment.
    fn layout(name: &str) -> (Vec<(String, usize)>, usize) {
        let body = HEADER.split_once(&format!("struct {name} {{\n")).unwrap().1.split_once("};").unwrap().0;
        let (mut fields, mut at, mut widest) = (Vec::new(), 0usize, 1);
        for line in body.lines() {
            let (kind, field) = line.trim().trim_end_matches(';').split_once(' ').unwrap();
            let bits: usize = kind.trim_start_matches("__").trim_start_matches(['u', 's']).parse().unwrap();
            let (field, count) = match field.split_once('[') {
                Some((field, count)) => (field, count.trim_end_matches(']').parse().unwrap()),
                None => (field, 1),
            };
            at = at.next_multiple_of(bits / 8);
            fields.push((field.to_owned(), at));
            (at, widest) = (at + bits / 8 * count, widest.max(bits / 8));
        }
        (fields, at.next_multiple_of(widest))
    }

    macro_rules! same {
        ($type:ty, $name:literal, $($field:ident),* $(,)?) => {
            let ours = vec![$((stringify!($field).trim_start_matches("r#").to_owned(), offset_of!($type, $field))),*];
            assert_eq!((ours, size_of::<$type>()), layout($name), $name);
        };
    }

    #[test]
    fn structures_are_the_headers() {
        same!(
            Request,
            "tdispd_tsm_request",
            cookie,
            op,
            flags,
            timeout_ms,
            tdi_id,
            scope,
            payload_len,
            response_len,
            segment,
            function,
            dsm,
            stream_id,
            reserved,
        );
        same!(Answer, "tdispd_tsm_answer", cookie, code, error, payload_len);
        same!(Doe, "tdispd_tsm_doe", cookie, request, response, request_len, response_len, r#type, reserved);
        same!(Bind, "tdispd_tsm_bind", vm_fd, tdi_id, segment, function, reserved);
        same!(Guest, "tdispd_tsm_guest", request, response, code, request_len, response_len, scope, reserved);
        let sizes = [
            size_of::<Request>(),
            size_of::<Answer>(),
            size_of::<Doe>(),
            size_of::<Bind>(),
            size_of::<Guest>(),
        ];
        assert_eq!(sizes, [48, 24, 40, 16, 40]);
    }

    #[test]
    fn numbers_are_the_headers() {
        let defined = |name: &str| {
            let mut words =
                HEADER.lines().filter_map(|line| line.strip_prefix("#define ")).map(str::split_whitespace);
            let value = words.find_map(|mut words| {
                (words.next() == Some(name)).then(|| words.collect::<Vec<_>>().join(" "))
            });
            value.unwrap().split(" /*").next().unwrap().to_owned()
        };
        for (name, value) in [
            ("ABI", i64::from(ABI)),
            ("MAX", MAX as i64),
            ("CONNECT", CONNECT.into()),
            ("DISCONNECT", DISCONNECT.into()),
            ("BIND", BIND.into()),
            ("UNBIND", UNBIND.into()),
            ("GUEST", GUEST.into()),
            ("STREAM", STREAM.into()),
            ("GUEST_STATE", GUEST_STATE.into()),
            ("GUEST_REPORT", GUEST_REPORT.into()),
            ("GUEST_START", GUEST_START.into()),
            ("GUEST_SEALED", GUEST_SEALED.into()),
        ] {
            assert_eq!(defined(&format!("TDISPD_TSM_{name}")), value.to_string(), "{name}");
        }
        for (name, value) in [
            ("VERSION", "_IO(0xE7, 0)"),
            ("SERVE", "_IO(0xE7, 1)"),
            ("DOE", "_IOWR(0xE7, 2, struct tdispd_tsm_doe)"),
            ("BIND_VM", "_IOW(0xE7, 3, struct tdispd_tsm_bind)"),
            ("UNBIND_VM", "_IO(0xE7, 4)"),
            ("GUEST_REQ", "_IOWR(0xE7, 5, struct tdispd_tsm_guest)"),
        ] {
            assert_eq!(defined(&format!("TDISPD_TSM_{name}")), value, "{name}");
        }
    }
}
