//! The 4 KiB image: every bit read-only unless marked writable or write-1-to-clear, and what a write set in motion.

use super::bars::BarDecoder;
use super::capabilities::{ARI, ATS, EXT_ARI, EXT_ATS, MSIX, PCIE, PM};
use super::registers::{AtsControl, Command, DeviceControl, MsixControl, PmControl, Status, header};

/// Bytes of a PCI Express function's configuration space.
pub const SPACE_BYTES: usize = 4096;

const DEVICE_CONTROL: u16 = PCIE + 8;
const PM_CONTROL: u16 = PM + 4;
const MSIX_CONTROL: u16 = MSIX + 2;

/// Registers that live outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The DOE mailbox's registers.
    Doe,
    /// The IDE capability's registers.
    Ide,
    /// `pci_cfg_data` of a virtio function.
    VirtioData,
}

/// What a configuration write touched that somebody else has to know about. Reported for every write that covers
/// the register, same value or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteEffect {
    /// Command register.
    Command {
        /// Value before the write.
        before: Command,
        /// Value after it.
        after: Command,
    },
    /// A dword of a BAR, by register index 0–5.
    Bar {
        /// Register index.
        index: u8,
        /// The register's value changed.
        changed: bool,
    },
    /// Expansion ROM Base Address (there is none: it keeps 0).
    Rom,
    /// BIST register (not implemented: it keeps 0).
    Bist,
    /// Device Control, without the FLR bit.
    DeviceControl {
        /// Value before the write.
        before: DeviceControl,
        /// Value after it.
        after: DeviceControl,
    },
    /// Initiate Function Level Reset was written as 1.
    Flr,
    /// Power Management Control/Status.
    Power {
        /// Value before the write.
        before: PmControl,
        /// Value after it.
        after: PmControl,
    },
    /// MSI-X Message Control.
    Msix {
        /// Value before the write.
        before: MsixControl,
        /// Value after it.
        after: MsixControl,
    },
    /// ARI Control (nothing in it can be set).
    Ari,
}

/// One function's configuration space.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    image: Vec<u8>,
    writable: Vec<u8>,
    clearable: Vec<u8>,
    reset: Vec<u8>,
    bars: Vec<BarDecoder>,
    windows: Vec<(Window, u16, u16)>,
}

impl ConfigSpace {
    pub(super) fn new() -> Self {
        let zero = vec![0; SPACE_BYTES];
        Self {
            image: zero.clone(),
            writable: zero.clone(),
            clearable: zero.clone(),
            reset: zero,
            bars: Vec::new(),
            windows: Vec::new(),
        }
    }

    /// Remembers the image as the one to return to on reset.
    pub(super) fn seal(&mut self) {
        self.reset.clone_from(&self.image);
    }

    pub(super) fn put8(&mut self, at: u16, value: u8) {
        put(&mut self.image, at, &[value]);
    }

    pub(super) fn put16(&mut self, at: u16, value: u16) {
        put(&mut self.image, at, &value.to_le_bytes());
    }

    pub(super) fn put32(&mut self, at: u16, value: u32) {
        put(&mut self.image, at, &value.to_le_bytes());
    }

    pub(super) fn writable8(&mut self, at: u16, mask: u8) {
        put(&mut self.writable, at, &[mask]);
    }

    pub(super) fn writable16(&mut self, at: u16, mask: u16) {
        put(&mut self.writable, at, &mask.to_le_bytes());
    }

    pub(super) fn writable32(&mut self, at: u16, mask: u32) {
        put(&mut self.writable, at, &mask.to_le_bytes());
    }

    pub(super) fn clearable16(&mut self, at: u16, mask: u16) {
        put(&mut self.clearable, at, &mask.to_le_bytes());
    }

    pub(super) fn add_bar(&mut self, bar: BarDecoder) {
        self.put32(bar.offset(), bar.flags());
        let mask = bar.address_mask().to_le_bytes();
        put(&mut self.writable, bar.offset(), mask.get(..usize::from(bar.length())).unwrap_or(&[]));
        self.bars.push(bar);
    }

    pub(super) fn add_window(&mut self, window: Window, at: u16, length: u16) {
        self.windows.push((window, at, length));
    }

    /// The window that the dword at `offset` belongs to, with the offset inside it.
    pub fn window(&self, offset: u16) -> Option<(Window, u16)> {
        self.windows
            .iter()
            .find(|(_, at, length)| offset >= *at && offset - at < *length)
            .map(|(window, at, _)| (*window, offset - at))
    }

    /// Copies image bytes out; bytes beyond the space read as ones. Windows are the caller's.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = self.image.get(usize::from(offset) + index).copied().unwrap_or(0xFF);
        }
    }

    /// Writes `data`, honouring the masks, and says what that set in motion.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Vec<WriteEffect> {
        let before = self.registers();
        let start = usize::from(offset);
        for (index, value) in data.iter().enumerate() {
            let at = start + index;
            if let (Some(byte), Some(rw), Some(w1c)) =
                (self.image.get_mut(at), self.writable.get(at), self.clearable.get(at))
            {
                *byte = ((*byte & !rw) | (value & rw)) & !(value & w1c);
            }
        }
        let touched = |at: u16, length: usize| {
            let at = usize::from(at);
            at < start.saturating_add(data.len()) && start < at + length
        };
        let mut effects = Vec::new();
        let after = self.registers();
        if touched(header::COMMAND, 2) {
            effects.push(WriteEffect::Command { before: before.command, after: after.command });
        }
        if touched(header::BIST, 1) {
            effects.push(WriteEffect::Bist);
        }
        for (index, (old, new)) in (0_u8..).zip(before.bars.iter().zip(&after.bars)) {
            if touched(header::BAR0 + 4 * u16::from(index), 4) {
                effects.push(WriteEffect::Bar { index, changed: old != new });
            }
        }
        if touched(header::ROM, 4) {
            effects.push(WriteEffect::Rom);
        }
        if touched(DEVICE_CONTROL, 2) {
            effects.push(WriteEffect::DeviceControl {
                before: before.device_control,
                after: after.device_control,
            });
            let flr_byte = usize::from(DEVICE_CONTROL) + 1;
            let written = flr_byte.checked_sub(start).and_then(|index| data.get(index)).copied().unwrap_or(0);
            if DeviceControl::from_bits(u16::from(written) << 8).initiate_flr() {
                effects.push(WriteEffect::Flr);
            }
        }
        if touched(PM_CONTROL, 2) {
            effects.push(WriteEffect::Power { before: before.power, after: after.power });
        }
        if self.has_msix() && touched(MSIX_CONTROL, 2) {
            effects.push(WriteEffect::Msix { before: before.msix, after: after.msix });
        }
        if self.has_extended(ARI, EXT_ARI) && touched(ARI + 6, 2) {
            effects.push(WriteEffect::Ari);
        }
        effects
    }

    /// Conventional reset: every register as built.
    pub fn reset(&mut self) {
        self.image.clone_from(&self.reset);
    }

    /// Function Level Reset. BARs keep their addresses: to a vfio client an FLR is "reset, then restore what the
    /// host knows", as the kernel's vfio-pci does it, and QEMU answers BAR reads from a copy that it would not
    /// write again.
    pub fn function_reset(&mut self) {
        let bars = self.registers().bars;
        self.reset();
        for (index, value) in (0_u16..).zip(bars) {
            self.put32(header::BAR0 + 4 * index, value);
        }
    }

    /// Command register.
    pub fn command(&self) -> Command {
        Command::from_bits(self.get16(header::COMMAND))
    }

    /// Device Control register.
    pub fn device_control(&self) -> DeviceControl {
        DeviceControl::from_bits(self.get16(DEVICE_CONTROL))
    }

    /// Power state: 0 = D0, 3 = D3Hot.
    pub fn power_state(&self) -> u8 {
        PmControl::from_bits(self.get16(PM_CONTROL)).power_state()
    }

    /// MSI-X Message Control, if there is MSI-X.
    pub fn msix_control(&self) -> Option<MsixControl> {
        self.has_msix().then(|| MsixControl::from_bits(self.get16(MSIX_CONTROL)))
    }

    /// Whether there is ATS, and it is enabled.
    pub fn ats_enabled(&self) -> bool {
        self.has_extended(ATS, EXT_ATS) && AtsControl::from_bits(self.get16(ATS + 6)).enable()
    }

    /// The BARs and the addresses they decode now.
    pub fn bar_addresses(&self) -> impl Iterator<Item = (BarDecoder, u64)> + '_ {
        self.bars.iter().map(|bar| {
            let low = u64::from(self.get32(bar.offset()));
            let high = if bar.wide { u64::from(self.get32(bar.offset() + 4)) } else { 0 };
            (*bar, (high << 32 | low) & bar.address_mask())
        })
    }

    /// Interrupt Status follows the level of the function's INTx request.
    pub fn set_interrupt_status(&mut self, pending: bool) {
        let status = Status::from_bits(self.get16(header::STATUS)).with_interrupt_status(pending);
        self.put16(header::STATUS, status.into_bits());
    }

    fn has_msix(&self) -> bool {
        self.get16(MSIX) & 0xFF == 0x11
    }

    pub(super) fn has_window(&self, window: Window) -> bool {
        self.windows.iter().any(|(there, ..)| *there == window)
    }

    fn has_extended(&self, at: u16, id: u16) -> bool {
        self.get16(at) == id
    }

    fn get16(&self, at: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    pub(super) fn get32(&self, at: u16) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn registers(&self) -> Registers {
        let bar = |index: u16| self.get32(header::BAR0 + 4 * index);
        Registers {
            command: self.command(),
            device_control: self.device_control(),
            power: PmControl::from_bits(self.get16(PM_CONTROL)),
            msix: MsixControl::from_bits(self.get16(MSIX_CONTROL)),
            bars: [bar(0), bar(1), bar(2), bar(3), bar(4), bar(5)],
        }
    }
}

/// The registers whose change is an effect.
struct Registers {
    command: Command,
    device_control: DeviceControl,
    power: PmControl,
    msix: MsixControl,
    bars: [u32; 6],
}

fn put(array: &mut [u8], at: u16, bytes: &[u8]) {
    for (slot, byte) in array.iter_mut().skip(usize::from(at)).zip(bytes) {
        *slot = *byte;
    }
}

#[cfg(test)]
mod tests;
