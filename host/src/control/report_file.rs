//! What `report set` reads.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::{Deserializer, Value};
use tdispd_proto::control::{MAX_REQUEST, ReportText};

use crate::error::{Error, Result};

/// The report in a file, or from `input` if it is called `-`.
pub(super) fn read(path: &Path, input: &mut dyn BufRead) -> Result<ReportText> {
    let fail = |problem: String| Error::Usage(format!("{}: {problem}", path.display()));
    let mut file;
    let from: &mut dyn Read = if path == Path::new("-") {
        input
    } else {
        file = File::open(path).map_err(|error| fail(error.to_string()))?;
        &mut file
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_REQUEST).unwrap_or(u64::MAX);
    from.take(limit + 1).read_to_end(&mut bytes).map_err(|error| fail(error.to_string()))?;
    if bytes.len() > MAX_REQUEST {
        return Err(fail(format!("more than {MAX_REQUEST} bytes")));
    }
    parse(&bytes).map_err(fail)
}

fn parse(bytes: &[u8]) -> Result<ReportText, String> {
    let mut values = Deserializer::from_slice(bytes).into_iter::<Value>();
    let first = values.next().ok_or("empty")?.map_err(|error| error.to_string())?;
    for more in values {
        let more = more.map_err(|error| error.to_string())?;
        // `--json report get` ends like any other command.
        if more.get("type").and_then(Value::as_str) != Some("summary") {
            return Err("more than one report".into());
        }
    }
    let said = match (first.get("report"), first.get("hex")) {
        // Bytes that are no report have no fields.
        (Some(Value::Null), Some(hex)) => serde_json::json!({ "hex": hex }),
        (Some(fields), _) => fields.clone(),
        (None, _) => first,
    };
    let text = serde_json::from_value(said).map_err(|error| error.to_string())?;
    if let ReportText::Edited(fields) = &text {
        fields.check().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdispd_proto::control::{Hex, HexBytes, ReportFields};

    #[test]
    fn all_three_forms_are_taken() {
        let exact = |bytes: &[u8]| Ok(ReportText::Exact { hex: HexBytes(bytes.to_vec()) });
        let edited = Ok(ReportText::Edited(ReportFields { lnr_control: Some(Hex(7)), ..Default::default() }));
        for (text, expected) in [
            (r#"{"hex": "0102"}"#, exact(&[1, 2])),
            (r#"{"lnr_control": 7}"#, edited.clone()),
            (
                "{\"type\":\"report\",\"function\":0,\"hex\":\"00\",\"report\":{\"lnr_control\":\"0x0007\"}}\n{\"type\":\"summary\"}\n",
                edited,
            ),
            (r#"{"report": null, "undecodable": "short", "hex": "ff"}"#, exact(&[0xFF])),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_named() {
        for (text, part) in [
            ("", "empty"),
            ("nonsense", "expected"),
            (r#"{"lnr": 7}"#, "`lnr`"),
            (r#"{"hex": "0"}"#, "hexadecimal"),
            (r#"{"hex": "00"} {"hex": "00"}"#, "more than one"),
            (r#"{"ranges": [{"pages": 1}]}"#, "ranges[0].bar"),
            (r#"{"report": 7}"#, "report"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = read(Path::new("/nowhere/report.json"), &mut &b""[..]).unwrap_err();
        assert!(error.to_string().contains("/nowhere/report.json"), "{error}");
    }
}
