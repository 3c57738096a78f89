//! Event types and subscriptions of libspdm's requester and responder, and the events that its requester is sent.

use std::ffi::c_void;
use std::ptr::null_mut;

use libspdm_sys as sys;

use super::{Peer, Reference};

const ROOM: usize = 256;

/// What libspdm's responder made of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Number of subscriptions since this was asked last.
    pub times: u8,
    /// LIBSPDM_EVENT_SUBSCRIBE_ALL, _NONE or _LIST of the last: 0, 1, 2.
    pub kind: u8,
    /// Number of groups.
    pub groups: u8,
    /// The groups as on the wire.
    pub list: Vec<u8>,
}

// Every `unsafe` call below: as in the parent.
impl Reference {
    /// GET_SUPPORTED_EVENT_TYPES: number of groups, and the groups as on the wire.
    pub fn event_types(&mut self, session: u32) -> (u8, Vec<u8>) {
        let (mut count, mut list, mut size) = (0, vec![0_u8; ROOM], u32::try_from(ROOM).unwrap());
        // SAFETY: see above.
        let status = unsafe {
            sys::libspdm_get_event_types(
                self.context,
                session,
                &mut count,
                &mut size,
                list.as_mut_ptr().cast::<c_void>(),
            )
        };
        self.check("event types", status);
        list.truncate(usize::try_from(size).unwrap());
        (count, list)
    }

    /// SUBSCRIBE_EVENT_TYPES.
    pub fn try_subscribe(&mut self, session: u32, count: u8, list: &[u8]) -> sys::Status {
        let mut list = list.to_vec();
        let pointer = if list.is_empty() { null_mut() } else { list.as_mut_ptr().cast::<c_void>() };
        let size = u32::try_from(list.len()).unwrap();
        // SAFETY: see above.
        unsafe { sys::libspdm_subscribe_event_types(self.context, session, count, size, pointer) }
    }

    /// As [`Self::try_subscribe`], which succeeds.
    pub fn subscribe(&mut self, session: u32, count: u8, list: &[u8]) {
        let status = self.try_subscribe(session, count, list);
        self.check("subscribe", status);
    }

    /// From now on SEND_EVENT is acknowledged.
    pub fn listen(&mut self) {
        // SAFETY: see above.
        unsafe { sys::ref_listen(self.context) };
    }

    /// The last SEND_EVENT since this was asked last; empty if there was none.
    pub fn event(&mut self) -> Vec<u8> {
        let mut message = vec![0; ROOM];
        // SAFETY: see above.
        let size = unsafe { sys::ref_take_event(message.as_mut_ptr(), message.len()) };
        message.truncate(size);
        message
    }
}

impl Peer {
    /// From now on GET_SUPPORTED_EVENT_TYPES is answered, by libspdm's own code.
    pub fn tell_events(&mut self) {
        // SAFETY: the peer lives as long as `self`.
        let context = unsafe { sys::ref_context(self.peer) };
        // SAFETY: a context that was just asked for.
        unsafe { sys::ref_tell_events(context) };
    }

    /// What was subscribed to since this was asked last.
    pub fn subscribed(&mut self) -> Subscribed {
        let mut told = [0; 4 + ROOM];
        // SAFETY: the buffer has this length.
        unsafe { sys::ref_take_subscription(told.as_mut_ptr(), told.len()) };
        let [times, kind, groups, size, ref list @ ..] = told;
        Subscribed { times, kind, groups, list: list[..usize::from(size)].to_vec() }
    }
}
