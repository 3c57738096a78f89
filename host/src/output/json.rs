//! JSON lines: one object a line, each with a `type`.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Form, Item, hex};

/// The JSON form.
pub(super) struct Json;

impl Form for Json {
    fn print(&mut self, out: &mut dyn Write, item: &Item<'_>) -> io::Result<()> {
        let line = match item {
            Item::Step(record) => with_type("step", serde_json::to_value(record)?),
            Item::Facts(title, facts) => {
                let facts: Map<_, _> =
                    facts.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
                json!({"type": "facts", "title": title, "facts": facts})
            }
            Item::Ranges(rows) => json!({"type": "ranges", "ranges": rows}),
            Item::Value(space, offset, bytes) => {
                json!({"type": "value", "space": space, "offset": offset, "hex": hex(bytes)})
            }
            Item::Told(what, value, _) => with_type(what, (*value).clone()),
            Item::Summary(summary) => json!({
                "type": "summary",
                "ok": summary.exit_code == 0,
                "steps": summary.steps,
                "failed": summary.failed,
                "skipped": summary.skipped,
                "microseconds": u64::try_from(summary.took.as_micros()).unwrap_or(u64::MAX),
                "exit_code": summary.exit_code,
                "error": summary.error.map(|e| json!({"kind": e.kind(), "message": e.to_string()})),
            }),
        };
        writeln!(out, "{line}")
    }
}

fn with_type(name: &str, mut value: Value) -> Value {
    if let Value::Object(map) = &mut value {
        map.insert("type".into(), name.into());
    }
    value
}
