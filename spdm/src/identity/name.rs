//! The name a PCIe function carries in its leaf certificate.

use core::fmt;
use core::str::FromStr;

/// The subject alternative name of a PCIe leaf certificate (PCIe 6.1 §6.31.3, CMA/SPDM): an otherName of type
/// [`PciName::OID`] whose text is the function's configuration-space identity.
///
/// `Display` writes the text exactly as requesters compare it (lower-case hexadecimal, fixed widths), and
/// `FromStr` accepts nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PciName {
    /// Vendor ID register.
    pub vendor: u16,
    /// Device ID register.
    pub device: u16,
    /// Class Code register, 24 bits: base class, sub-class, programming interface.
    pub class: u32,
    /// Revision ID register.
    pub revision: u8,
    /// Subsystem Vendor ID register.
    pub subsystem_vendor: u16,
    /// Subsystem ID register.
    pub subsystem: u16,
    /// Device Serial Number capability; `None` where a function has none.
    pub serial: Option<u64>,
}

impl PciName {
    /// 2.23.147, the PCI-SIG's object identifier for this name.
    pub const OID: &'static [u64] = &[2, 23, 147];
}

impl fmt::Display for PciName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Vendor={:04x}:Device={:04x}:CC={:06x}:REV={:02x}:SSVID={:04x}:SSID={:04x}",
            self.vendor,
            self.device,
            self.class & 0x00ff_ffff,
            self.revision,
            self.subsystem_vendor,
            self.subsystem
        )?;
        match self.serial {
            Some(serial) => write!(f, ":{serial:016x}"),
            None => Ok(()),
        }
    }
}

/// The text is not a PCIe subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form Vendor=vvvv:Device=dddd:CC=cccccc:REV=rr:SSVID=vvvv:SSID=ssss[:serial]")]
pub struct NameError;

impl FromStr for PciName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut fields = text.split(':');
        let mut field = |label: &str, digits: usize| {
            let value = fields.next().and_then(|field| field.strip_prefix(label)).ok_or(NameError)?;
            hex(value, digits)
        };
        let narrow = |_| NameError;
        let name = Self {
            vendor: field("Vendor=", 4)?.try_into().map_err(narrow)?,
            device: field("Device=", 4)?.try_into().map_err(narrow)?,
            class: field("CC=", 6)?.try_into().map_err(narrow)?,
            revision: field("REV=", 2)?.try_into().map_err(narrow)?,
            subsystem_vendor: field("SSVID=", 4)?.try_into().map_err(narrow)?,
            subsystem: field("SSID=", 4)?.try_into().map_err(narrow)?,
            serial: fields.next().map(|serial| hex(serial, 16)).transpose()?,
        };
        if fields.next().is_some() { Err(NameError) } else { Ok(name) }
    }
}

/// Exactly `digits` lower-case hexadecimal digits; `from_str_radix` alone would also take a sign and capitals.
fn hex(text: &str, digits: usize) -> Result<u64, NameError> {
    let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != digits || !plain {
        return Err(NameError);
    }
    u64::from_str_radix(text, 16).map_err(|_| NameError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "Vendor=1b36:Device=0011:CC=088000:REV=0a:SSVID=1af4:SSID=1100";

    fn name(serial: Option<u64>) -> PciName {
        PciName {
            vendor: 0x1b36,
            device: 0x11,
            class: 0x08_8000,
            revision: 10,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            serial,
        }
    }

    #[test]
    fn text_is_exactly_what_requesters_compare() {
        assert_eq!(name(None).to_string(), TEXT);
        assert_eq!(name(Some(0xab)).to_string(), format!("{TEXT}:00000000000000ab"));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "Vendor=1b36",
            &TEXT.to_uppercase(),
            &format!("{TEXT}:"),
            &format!("{TEXT}:ab"),
            &format!("{TEXT}:+0000000000000ab"),
            &format!("{TEXT}:00000000000000ab:"),
            &TEXT.replace("1b36", "1B36"),
            &TEXT.replace("REV=0a", "REV=a"),
            &TEXT.replace("CC=088000", "CC=1088000"),
            &TEXT.replace("Vendor", "Device"),
        ] {
            assert_eq!(bad.parse::<PciName>(), Err(NameError), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(
            vendor: u16, device: u16, class in 0u32..1 << 24, revision: u8,
            subsystem_vendor: u16, subsystem: u16, serial: Option<u64>,
        ) {
            let name = PciName { vendor, device, class, revision, subsystem_vendor, subsystem, serial };
            prop_assert_eq!(name.to_string().parse(), Ok(name));
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = text.parse::<PciName>();
        }
    }
}
