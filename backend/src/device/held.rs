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
