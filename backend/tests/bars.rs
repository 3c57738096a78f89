//! `tdispd bars` as its user meets it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::process::{Command, Output};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../qemu-config/examples/accelerator.toml");

fn bars(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdispd"));
    command.env_remove("RUST_LOG").env_remove("CLICOLOR_FORCE").arg("bars").args(arguments).output().unwrap()
}

fn text(arguments: &[&str]) -> String {
    let output = bars(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_default_device() {
    let expected = "\
function 0, interrupts by MSI-X

BAR  width             range   offset  size  kind        side     updatable  file
0    32                    0      0x0   16K  registers   private
2    64, prefetchable      0      0x0  512K  memory      private
                           1  0x80000  512K  memory      shared
4    32                    0      0x0    4K  msix-table  shared
                           1   0x1000    4K  msix-pba    shared

BAR 0   16K [######################### 0 registers ##########################]
BAR 2    1M [########### 0 memory ###########|.......... 1 memory ...........]
BAR 4    8K [......... 0 msix-table .........|......... 1 msix-pba ..........]
            # private  . shared
";
    let shown = text(&[]);
    assert_eq!(shown, expected, "{shown}");
}

#[test]
fn the_example_has_everything() {
    let shown = text(&["--config", EXAMPLE]);
    for part in [
        "0    32                    0       0x0    4K  registers   private\n",
        "                           1    0x1000    4K  doorbells   shared\n",
        "                           1  0x800000    4M  memory      private  yes\n",
        "qemu-config/examples/accelerator.rom\n",
        "BAR 0   16K [# 0 registers #|. 1 doorbells .|.......... 2 reserved ..........]\n",
        "|## 1 memory ###|#### 2 ####|.3.]\n",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
}

#[test]
fn json_is_for_machines() {
    let json: serde_json::Value = serde_json::from_str(&text(&["--json"])).unwrap();
    let range = |offset: u64, kind: &str, side: &str| {
        serde_json::json!({
            "offset": offset, "size": 524_288, "kind": kind, "side": side, "updatable": false, "file": null
        })
    };
    assert_eq!((&json[0]["function"], &json[0]["msix"]), (&0.into(), &true.into()));
    assert_eq!(
        json[0]["bars"][1],
        serde_json::json!({
            "index": 2, "width": 64, "prefetchable": true, "size": 1 << 20,
            "ranges": [range(0, "memory", "private"), range(524_288, "memory", "shared")],
        })
    );
    let json: serde_json::Value = serde_json::from_str(&text(&["--config", EXAMPLE, "--json"])).unwrap();
    let ranges = json[0]["bars"][2]["ranges"].as_array().unwrap();
    assert_eq!((&ranges[1]["updatable"], &ranges[2]["kind"]), (&true.into(), &"reserved".into()));
    assert!(ranges[3]["file"].as_str().unwrap().ends_with("examples/accelerator.rom"));
}

#[test]
fn every_function_of_a_file_is_shown_and_mistakes_end_with_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "[[function]]\n[[function]]\nmsix = false\n").unwrap();
    let shown = text(&["--config", path]);
    let titles: Vec<_> = shown.lines().filter(|line| line.starts_with("function")).collect();
    assert_eq!(titles, ["function 0, interrupts by MSI-X", "function 1, interrupts by INTA#"]);

    std::fs::write(path, "[[function]]\n[[function.bar]]\nindex = 7\n").unwrap();
    let output = bars(&["--config", path]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains("function[0].bar[0].index"), "{said}");
}

#[test]
fn help_teaches() {
    let help = text(&["--help"]);
    for part in ["--config", "--json", "private", "[[function.bar.range]]", "msix-pba", "Exit code 2"] {
        assert!(help.contains(part), "{part} is not in\n{help}");
    }
}
