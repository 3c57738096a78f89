//! IDE_KM: who may program keys, what is answered, and what is met with silence (PCIe 6.1 §6.33.3).

use crate::SessionId;
use crate::ide::StreamIndex;
use crate::wire::ide_km::{
    KeyHead, KeyMaterial, KeySlot, KpAckStatus, OBJECT_KEY_PROG, Object, QueryResponse,
};

use super::{Answer, Dsm};

impl Dsm {
    /// One IDE_KM object, without the protocol-id byte. The answer is appended to `response`.
    ///
    /// Discarded without an answer: objects outside of a secured session; objects of a session while another
    /// one owns key management (the first QUERY or KEY_PROG claims it until that session ends); unknown
    /// objects and wrong lengths other than KEY_PROG's; QUERY, K_SET_GO and K_SET_STOP for a port, stream or
    /// sub-stream that is not there, for they have no status to say so; K_SET_GO for a slot without a key.
    pub fn ide_km(&mut self, session: Option<SessionId>, message: &[u8], response: &mut Vec<u8>) -> Answer {
        let Some(session) = session else { return Answer::Silent };
        if !self.config.ide.key_management || self.key_manager.is_some_and(|owner| owner != session) {
            return Answer::Silent;
        }
        let answered = if message.first() == Some(&OBJECT_KEY_PROG) {
            self.key_prog(session, message, response)
        } else {
            self.other_object(session, message, response)
        };
        if answered.is_some() { Answer::Respond } else { Answer::Silent }
    }

    /// KEY_PROG of any length that has a head is acknowledged with that head.
    fn key_prog(&mut self, session: SessionId, message: &[u8], response: &mut Vec<u8>) -> Option<()> {
        let head = KeyHead::peek(message).ok()?;
        self.key_manager = Some(session);
        let status = match Object::decode(message) {
            Ok(Object::KeyProg(head, material)) => {
                self.program(session, head, material).err().unwrap_or(KpAckStatus::SUCCESS)
            }
            Ok(_) | Err(_) => KpAckStatus::INCORRECT_LENGTH,
        };
        Object::KpAck(KeyHead { status, ..head }).encode(response);
        Some(())
    }

    fn other_object(&mut self, session: SessionId, message: &[u8], response: &mut Vec<u8>) -> Option<()> {
        match Object::decode(message).ok()? {
            Object::Query(port_index) => {
                if port_index > self.config.ports.max_port_index {
                    return None;
                }
                self.key_manager = Some(session);
                let (requester_id, segment) = self.address.unwrap_or_default();
                let [bus, dev_func] = requester_id.to_be_bytes();
                Object::QueryResponse(QueryResponse {
                    port_index,
                    dev_func,
                    bus,
                    segment,
                    max_port_index: self.config.ports.max_port_index,
                    registers: &self.ide.image(),
                })
                .encode(response);
            }
            Object::KSetGo(head) => {
                let (stream, slot) = self.locate(&head).ok()?;
                let mut events = Vec::new();
                let known = self.ide.go(stream, slot, &mut events);
                self.apply(events);
                known.then(|| Object::KGoStopAck(head).encode(response))?;
            }
            Object::KSetStop(head) => {
                let (stream, slot) = self.locate(&head).ok()?;
                let mut events = Vec::new();
                let known = self.ide.stop(stream, slot, &mut events);
                self.apply(events);
                known.then(|| Object::KGoStopAck(head).encode(response))?;
            }
            // KEY_PROG has its own way, and nobody sends responses to a responder.
            Object::KeyProg(..) | Object::QueryResponse(_) | Object::KpAck(_) | Object::KGoStopAck(_) => {
                return None;
            }
        }
        Some(())
    }

    fn program(
        &mut self,
        session: SessionId,
        head: KeyHead,
        material: KeyMaterial,
    ) -> Result<(), KpAckStatus> {
        let (stream, slot) = self.locate(&head)?;
        if material.ifv != KeyMaterial::INITIAL_IFV {
            return Err(KpAckStatus::UNSUPPORTED_VALUE);
        }
        let mut events = Vec::new();
        let known = self.ide.program(stream, slot, material, session, &mut events);
        self.apply(events);
        if known { Ok(()) } else { Err(KpAckStatus::UNSPECIFIED_FAILURE) }
    }

    /// The slot that a head names, or the KP_ACK status for why there is none.
    fn locate(&self, head: &KeyHead) -> Result<(StreamIndex, KeySlot), KpAckStatus> {
        if head.port_index > self.config.ports.max_port_index {
            return Err(KpAckStatus::UNSUPPORTED_PORT_INDEX);
        }
        let slot = KeySlot::try_from(head.key).map_err(|_| KpAckStatus::UNSUPPORTED_VALUE)?;
        let stream = self.ide.find(head.stream_id).ok_or(KpAckStatus::UNSUPPORTED_VALUE)?;
        Ok((stream, slot))
    }
}
