//! Answers that wait until DMA is drained: LOCK, STOP and UNBIND_P2P_STREAM say with theirs that it is
//! (PCIe 6.1 §11.3.9, §11.3.16, §11.3.20). In the mailbox BUSY reads 1 meanwhile.

use core::time::Duration;

use super::Device;

/// An answer that is complete, but not readable yet.
pub(super) struct Held {
    request: Vec<u8>,
    answered: bool,
}

impl Device {
    /// Works on the object that waits in the mailbox, if one does. Call after the reply to the write that set GO; what came
    /// of it is readable after [`Device::deliver`].
    pub fn run(&mut self, now: Duration) {
        if self.held.is_some() {
            if self.mailbox.is_working() {
                return;
            }
            // An abort or a reset overtook the answer: nobody waits for it.
            self.deliver();
        }
        let Some(request) = self.mailbox.take_request() else { return };
        let mut response = core::mem::take(&mut self.response);
        let answered = self.exchange(now, &request, &mut response);
        self.response = response;
        self.held = Some(Held { request, answered });
    }

    /// Whether an answer for the mailbox waits for [`Device::deliver`].
    pub fn holds_answer(&self) -> bool {
        self.held.is_some()
    }

    /// An answer goes on waiting because DMA of `function` is being drained: a request counts as outstanding.
    pub fn hold(&mut self, function: usize) {
        if !self.draining.contains(&function) {
            self.draining.push(function);
            self.protocol.dsm.hold(function);
        }
    }

    /// No answer waits any more. Makes the one for the mailbox readable, if there is one and nothing overtook it.
    pub fn deliver(&mut self) {
        for function in core::mem::take(&mut self.draining) {
            self.protocol.dsm.release(function);
        }
        let Some(held) = self.held.take() else { return };
        self.mailbox.respond(held.request, held.answered.then_some(self.response.as_slice()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The mailbox's registers, as configuration space has them.
    const CONTROL: u16 = 0x118;
    const STATUS: u16 = 0x11C;
    const WRITE_MAILBOX: u16 = 0x120;
    const READ_MAILBOX: u16 = 0x124;
    const ABORT: u32 = 1;
    const GO: u32 = 1 << 31;
    const BUSY: u32 = 1;
    const READY: u32 = 1 << 31;
    /// Device Control, and its FLR bit.
    const DEVICE_CONTROL: u16 = 0x58;
    const FLR: u32 = 1 << 15;

    fn device() -> Device {
        Device::new(&Config::default().for_sockets(2).unwrap(), None).unwrap()
    }

    fn write(device: &mut Device, register: u16, value: u32) {
        device.config_write(0, register, &value.to_le_bytes());
    }

    fn read(device: &mut Device, register: u16) -> u32 {
        let mut value = [0; 4];
        device.config_read(0, register, &mut value);
        u32::from_le_bytes(value)
    }

    /// DOE discovery of the type with this index.
    fn ask(device: &mut Device, index: u32) {
        for dword in [0x0000_0001, 3, index] {
            write(device, WRITE_MAILBOX, dword);
        }
        write(device, CONTROL, GO);
    }

    /// The type that the answer in the mailbox names, and the mailbox is empty.
    fn answered_type(device: &mut Device) -> u32 {
        assert_eq!(read(device, STATUS), READY);
        let dwords = [(); 3].map(|()| {
            let dword = read(device, READ_MAILBOX);
            write(device, READ_MAILBOX, 0);
            dword
        });
        assert_eq!((dwords[0], dwords[1], read(device, STATUS)), (1, 3, 0));
        dwords[2] >> 16 & 0xFF
    }

    type Overtake = fn(&mut Device);

    /// What ends an object before its answer is readable.
    const OVERTAKING: [(&str, Overtake); 3] = [
        ("abort", |device| write(device, CONTROL, ABORT)),
        ("function level reset", |device| write(device, DEVICE_CONTROL, FLR)),
        ("conventional reset", |device| device.reset(0)),
    ];

    #[test]
    fn an_answer_is_readable_once_it_is_delivered() {
        let mut device = device();
        ask(&mut device, 1);
        device.run(Duration::ZERO);
        device.run(Duration::ZERO);
        assert!(device.holds_answer());
        assert_eq!((read(&mut device, STATUS), read(&mut device, READ_MAILBOX)), (BUSY, 0));
        device.deliver();
        assert!(!device.holds_answer());
        assert_eq!(answered_type(&mut device), 1);
    }

    #[test]
    fn an_answer_that_was_overtaken_is_never_readable() {
        for (name, overtake) in OVERTAKING {
            let mut device = device();
            ask(&mut device, 1);
            device.run(Duration::ZERO);
            device.hold(1);
            overtake(&mut device);
            assert_eq!((read(&mut device, STATUS), read(&mut device, READ_MAILBOX)), (0, 0), "{name}");
            device.deliver();
            assert_eq!((read(&mut device, STATUS), read(&mut device, READ_MAILBOX)), (0, 0), "{name}");
            assert!(!device.holds_answer() && device.draining.is_empty(), "{name}");
            ask(&mut device, 2);
            device.run(Duration::ZERO);
            device.deliver();
            assert_eq!(answered_type(&mut device), 2, "{name}");
        }
    }

    #[test]
    fn the_next_object_may_come_while_the_overtaken_answer_is_still_held() {
        for (name, overtake) in OVERTAKING {
            let mut device = device();
            ask(&mut device, 1);
            device.run(Duration::ZERO);
            device.hold(1);
            overtake(&mut device);
            ask(&mut device, 2);
            assert_eq!(read(&mut device, STATUS), BUSY, "{name}");
            // Nobody waits for the old request any more, whatever is still being drained.
            device.run(Duration::ZERO);
            assert!(device.holds_answer() && device.draining.is_empty(), "{name}");
            assert_eq!((read(&mut device, STATUS), read(&mut device, READ_MAILBOX)), (BUSY, 0), "{name}");
            device.deliver();
            assert_eq!(answered_type(&mut device), 2, "{name}");
        }
    }

    #[test]
    fn an_overtaken_answer_is_not_the_next_objects_even_if_it_is_delivered_late() {
        for (name, overtake) in OVERTAKING {
            let mut device = device();
            ask(&mut device, 1);
            device.run(Duration::ZERO);
            overtake(&mut device);
            ask(&mut device, 2);
            device.deliver();
            assert_eq!((read(&mut device, STATUS), read(&mut device, READ_MAILBOX)), (BUSY, 0), "{name}");
            device.run(Duration::ZERO);
            device.deliver();
            assert_eq!(answered_type(&mut device), 2, "{name}");
        }
    }

    #[test]
    fn a_reset_of_another_function_overtakes_nothing() {
        let mut device = device();
        ask(&mut device, 1);
        device.run(Duration::ZERO);
        device.reset(1);
        device.deliver();
        assert_eq!(answered_type(&mut device), 1);
    }
}
