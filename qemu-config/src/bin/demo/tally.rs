//! Counts what `tdispctl --json run` did on each layer.

use serde::Deserialize;
use std::fmt;

/// Every layer a walk has to have steps of, from the outside in.
const LAYERS: [&str; 7] = ["PCI", "DOE", "SPDM", "IDE", "TDISP", "MMIO", "DMA"];

/// The lines of interest; all others have another `type`.
#[derive(Deserialize)]
struct Line {
    r#type: String,
    layer: Option<String>,
    /// `null`: left out.
    ok: Option<bool>,
}

/// Steps of one walk.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    held: [u32; LAYERS.len()],
    failed: u32,
    left_out: u32,
}

impl Tally {
    /// Reads JSON lines.
    pub(crate) fn of(text: &str) -> Result<Self, serde_json::Error> {
        let mut tally = Self::default();
        for line in text.lines() {
            let line: Line = serde_json::from_str(line)?;
            if line.r#type != "step" {
                continue;
            }
            match line.ok {
                Some(true) => {
                    let layer = LAYERS.iter().position(|layer| line.layer.as_deref() == Some(layer));
                    if let Some(count) = layer.and_then(|index| tally.held.get_mut(index)) {
                        *count += 1;
                    }
                }
                Some(false) => tally.failed += 1,
                None => tally.left_out += 1,
            }
        }
        Ok(tally)
    }

    /// Whether every layer was walked, and every step held.
    pub(crate) fn complete(&self) -> bool {
        self.failed == 0 && self.left_out == 0 && self.held.iter().all(|count| *count > 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "steps that held:")?;
        for (layer, count) in LAYERS.iter().zip(self.held) {
            write!(out, " {layer} {count}")?;
        }
        write!(out, "; failed: {}; left out: {}", self.failed, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(layers: &[&str]) -> String {
        let steps =
            layers.iter().map(|layer| format!(r#"{{"type":"step","layer":"{layer}","ok":true,"seen":""}}"#));
        steps.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_walk_is_complete_with_all_layers_and_nothing_failed_or_left_out() {
        let whole = walk(&LAYERS);
        assert!(Tally::of(&whole).unwrap().complete());
        assert!(Tally::of(&format!("{whole}\n{{\"type\":\"summary\",\"ok\":true}}")).unwrap().complete());
        assert!(!Tally::of(&walk(&LAYERS[..6])).unwrap().complete());
        for bad in ["false", "null"] {
            let text = format!("{whole}\n{{\"type\":\"step\",\"layer\":\"DMA\",\"ok\":{bad}}}");
            assert!(!Tally::of(&text).unwrap().complete());
        }
        assert!(Tally::of("no JSON").is_err());
    }
}
