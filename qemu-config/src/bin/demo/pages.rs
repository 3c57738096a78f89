//! The demo's own look at one private and one shared page, with the guest processor's plain loads and stores: what each TDI state
//! makes of them, told apart from what `tdispctl` says about it.

use qemu_config::{Guest, GuestError};

/// What a page does with a store and the load after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// The load returns what was stored.
    Works,
    /// The load returns all ones.
    Refuses,
    /// Neither.
    Other {
        /// What was stored.
        stored: u32,
        /// What came back.
        loaded: u32,
    },
}

impl Behaviour {
    fn of(stored: u32, loaded: u32) -> Self {
        match loaded {
            _ if loaded == stored => Self::Works,
            u32::MAX => Self::Refuses,
            _ => Self::Other { stored, loaded },
        }
    }

    pub(crate) fn describe(self) -> String {
        match self {
            Self::Works => "keeps what is stored".to_owned(),
            Self::Refuses => "reads all ones".to_owned(),
            Self::Other { stored, loaded } => format!("stored {stored:#010x}, read {loaded:#010x}"),
        }
    }
}

/// What was found at both pages in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// What the private page read before anything was stored.
    pub(crate) private_before: u32,
    /// The private page.
    pub(crate) private: Behaviour,
    /// The shared page.
    pub(crate) shared: Behaviour,
}

/// A private and a shared page, by their bus addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages {
    pub(crate) private: u64,
    pub(crate) shared: u64,
}

impl Pages {
    /// Stores and loads 32 bits at both; `seed` makes the values differ from those of other looks.
    pub(crate) fn look(self, guest: &mut Guest, seed: u16) -> Result<Look, Box<dyn std::error::Error>> {
        let Self { private, shared } = self;
        let private_value = 0x5EC0_0000 | u32::from(seed);
        let shared_value = 0x0BE4_0000 | u32::from(seed);
        let output = guest.check(&format!(
            "set -e; devmem {private:#x} 32; devmem {private:#x} 32 {private_value:#x}; devmem {shared:#x} 32 {shared_value:#x}; \
             devmem {private:#x} 32; devmem {shared:#x} 32"
        ))?;
        let values = output.lines().map(parse).collect::<Result<Vec<_>, _>>()?;
        let [private_before, private_after, shared_after] = values.as_slice() else {
            return Err(format!("unexpected output of devmem: {output}").into());
        };
        Ok(Look {
            private_before: *private_before,
            private: Behaviour::of(private_value, *private_after),
            shared: Behaviour::of(shared_value, *shared_after),
        })
    }
}

/// `0xABCD` as devmem prints it.
fn parse(text: &str) -> Result<u32, String> {
    let digits = text.trim().strip_prefix("0x").ok_or_else(|| format!("not a value of devmem: '{text}'"))?;
    u32::from_str_radix(digits, 16).map_err(|error| format!("'{text}': {error}"))
}

/// The bus address of a BAR, from the kernel's list of a function's resources (`START END FLAGS`, a line for each).
pub(crate) fn bar_address(guest: &mut Guest, device: &str, bar: usize) -> Result<Option<u64>, GuestError> {
    let resources = guest.check(&format!("cat /sys/bus/pci/devices/{device}/resource"))?;
    Ok(parse_resource(&resources, bar))
}

fn parse_resource(resources: &str, bar: usize) -> Option<u64> {
    let start = resources.lines().nth(bar)?.split_whitespace().next()?.strip_prefix("0x")?;
    u64::from_str_radix(start, 16).ok().filter(|address| *address != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_are_told_apart() {
        assert_eq!(Behaviour::of(5, 5), Behaviour::Works);
        assert_eq!(Behaviour::of(5, u32::MAX), Behaviour::Refuses);
        assert_eq!(Behaviour::of(5, 0), Behaviour::Other { stored: 5, loaded: 0 });
        assert_eq!(parse("0xDEADBEEF\n"), Ok(0xDEAD_BEEF));
        assert!(parse("devmem: not found").is_err());
    }

    #[test]
    fn a_bar_is_found_by_its_line() {
        let resources = "0x00000000fe600000 0x00000000fe603fff 0x0000000000040200\n\
            0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
            0x0000380000000000 0x00003800000fffff 0x000000000014220c\n";
        assert_eq!(parse_resource(resources, 0), Some(0xfe60_0000));
        assert_eq!(parse_resource(resources, 1), None);
        assert_eq!(parse_resource(resources, 2), Some(0x3800_0000_0000));
        assert_eq!(parse_resource(resources, 7), None);
    }
}
