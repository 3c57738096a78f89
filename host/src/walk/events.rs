//! SPDM events: which a device tells of, and following them in a session (DSP0274 1.3 "SUBSCRIBE_EVENT_TYPES").

use std::time::Duration;

use serde_json::{Value, json};
use spdm::wire::{EventData, EventDetail, EventGroup, EventGroupId};

use super::link::failed;
use super::{Seen, Walk, requester};
use crate::cli::EventsArgs;
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::output::record::Layer;
use crate::output::{Item, hex};

/// How often the device is asked whether it has something to tell: nobody but the requester begins an exchange.
const PERIOD: Duration = Duration::from_millis(100);

impl Walk {
    pub(super) fn events(&mut self, args: &EventsArgs) -> Result<()> {
        if self.requester.session().is_some() || self.options.session.is_some() {
            return Err(Error::Usage(
                "events opens and ends a session of its own, in which the device may ask; it takes no other"
                    .into(),
            ));
        }
        // Elsewhere nobody asks what the device wants, so that is not offered there.
        let listening = requester(&self.options, true)?;
        let ordinary = core::mem::replace(&mut self.requester, listening);
        let result = self.managed(|walk| {
            let groups = walk.event_types()?;
            match args.count {
                Some(count) => walk.follow_events(groups, count),
                None => Ok(()),
            }
        });
        self.requester = ordinary;
        result
    }

    fn event_types(&mut self) -> Result<Vec<EventGroup>> {
        self.step(Layer::Spdm, "SUPPORTED_EVENT_TYPES", "what the device tells of", |walk| {
            let groups = walk.spdm()?.event_types().map_err(failed)?;
            let text: Vec<String> = groups.iter().map(group_text).collect();
            Ok(Seen::good(groups, text.join("; ")))
        })
    }

    fn follow_events(&mut self, groups: Vec<EventGroup>, count: u64) -> Result<()> {
        let all =
            groups.into_iter().map(|group| EventGroup { all: true, types: Vec::new(), ..group }).collect();
        self.step(Layer::Spdm, "SUBSCRIBE_EVENT_TYPES", "accepted", |walk| {
            walk.spdm()?.subscribe(all).map_err(failed)?;
            Ok(Seen::good((), "all of them"))
        })?;
        let clock = SystemClock::new();
        let until = self.options.timeout.map(Duration::from_secs_f64);
        let mut left = count;
        loop {
            for event in self.spdm()?.serve().map_err(failed)?.events {
                self.output.tell(&Item::Told("spdm-event", &value(&event), &text(&event)));
                left = left.saturating_sub(1);
            }
            if left == 0 || self.output.is_broken() {
                return Ok(());
            }
            let now = clock.now();
            if until.is_some_and(|until| until <= now) {
                return Err(Error::TimedOut { what: format!("{left} more events"), after: now });
            }
            clock.sleep(PERIOD);
        }
    }
}

fn group_text(group: &EventGroup) -> String {
    let owner = match &group.id {
        id if *id == EventGroupId::DMTF => "DMTF".to_owned(),
        id => format!("registry {} vendor {}", id.registry, hex(&id.vendor_id)),
    };
    let types: Vec<String> = group.types.iter().map(|kind| name(&group.id, *kind)).collect();
    format!("{owner}: {}", types.join(", "))
}

fn name(group: &EventGroupId, kind: u16) -> String {
    let known = match kind {
        EventDetail::EVENT_LOST => "EventLost",
        EventDetail::MEASUREMENT_CHANGED => "MeasurementChanged",
        EventDetail::MEASUREMENT_PRE_UPDATE => "MeasurementPreUpdate",
        EventDetail::CERTIFICATE_CHANGED => "CertificateChanged",
        _ => return format!("type {kind}"),
    };
    if *group == EventGroupId::DMTF { known.to_owned() } else { format!("type {kind}") }
}

/// What an event is called, and what it says: for people, and for programs.
fn parts(detail: &EventDetail) -> (String, String, Value) {
    let dmtf = name(&EventGroupId::DMTF, detail.kind());
    match detail {
        EventDetail::EventLost { last_acknowledged, last_lost } => (
            dmtf,
            format!("after {last_acknowledged}, up to {last_lost}"),
            json!({"last_acknowledged": last_acknowledged, "last_lost": last_lost}),
        ),
        EventDetail::MeasurementChanged(set) | EventDetail::MeasurementPreUpdate(set) => {
            let indexes: Vec<u8> = set.iter().collect();
            (dmtf, format!("measurements {indexes:?}"), json!({"measurements": indexes}))
        }
        EventDetail::CertificateChanged(mask) => {
            let slots: Vec<u8> = (0..8).filter(|slot| mask >> slot & 1 == 1).collect();
            (dmtf, format!("slots {slots:?}"), json!({"slots": slots}))
        }
        EventDetail::Other { group, kind, detail } => {
            let detail = hex(detail);
            (name(group, *kind), detail.clone(), json!({"registry": group.registry, "detail": detail}))
        }
    }
}

fn text(event: &EventData) -> String {
    let (name, says, _) = parts(&event.detail);
    format!("event {}: {name}: {says}", event.instance)
}

fn value(event: &EventData) -> Value {
    let (name, _, says) = parts(&event.detail);
    json!({"instance": event.instance, "event": name, "says": says})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_name_and_says_what_is_in_it() {
        let other = EventGroupId { registry: 3, vendor_id: vec![1, 0] };
        let of = |detail| {
            let event = EventData { instance: 7, detail };
            (text(&event), value(&event)["says"].to_string())
        };
        for (detail, expected, says) in [
            (
                EventDetail::EventLost { last_acknowledged: 1, last_lost: 4 },
                "event 7: EventLost: after 1, up to 4",
                r#"{"last_acknowledged":1,"last_lost":4}"#,
            ),
            (
                EventDetail::MeasurementChanged([2, 9].into_iter().collect()),
                "event 7: MeasurementChanged: measurements [2, 9]",
                r#"{"measurements":[2,9]}"#,
            ),
            (
                EventDetail::MeasurementPreUpdate([255].into_iter().collect()),
                "event 7: MeasurementPreUpdate: measurements [255]",
                r#"{"measurements":[255]}"#,
            ),
            (
                EventDetail::CertificateChanged(0b1000_0101),
                "event 7: CertificateChanged: slots [0, 2, 7]",
                r#"{"slots":[0,2,7]}"#,
            ),
            (
                EventDetail::Other { group: other.clone(), kind: 1, detail: vec![0xAB] },
                "event 7: type 1: ab",
                r#"{"detail":"ab","registry":3}"#,
            ),
        ] {
            assert_eq!(of(detail), (expected.to_owned(), says.to_owned()));
        }
        let group = |id| EventGroup { id, version: 1, all: false, types: vec![1, 4, 9] };
        assert_eq!(group_text(&group(EventGroupId::DMTF)), "DMTF: EventLost, CertificateChanged, type 9");
        assert_eq!(group_text(&group(other)), "registry 3 vendor 0100: type 1, type 4, type 9");
    }
}
