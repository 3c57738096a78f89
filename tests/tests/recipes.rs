//! `qemu-config/RECIPES.md`: every recipe starts a QEMU that has the device.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::process::{Command, Stdio};

use qemu_config::Daemon;
use tests::guest::prepare;

const RECIPES: &str = include_str!("../../qemu-config/RECIPES.md");
/// What the commands of the recipes are here. Arguments that virtme-ng passes on are split as a shell splits them.
const WORDS: &str = r#"
qemu-system-x86_64() { echo 'info qtree
quit' | "$qemu" "$@" -accel tcg -display none -S -monitor stdio; }
vng() {
    options='-machine q35'
    while [ $# -gt 0 ]; do
        case $1 in
        --memory) options="$options -m $2"; shift ;;
        --qemu-opts=*) options="$options ${1#*=}" ;;
        esac
        shift
    done
    eval "qemu-system-x86_64 $options"
}
set -eu
"#;

/// The fenced blocks with this language tag.
fn blocks(tag: &str) -> Vec<&'static str> {
    // Between fences, every second piece is a block; its first line is the tag.
    let pieces = RECIPES.split("\n```").skip(1).step_by(2);
    let named = pieces.filter_map(|piece| piece.split_once('\n')).filter(|(found, _)| *found == tag);
    named.map(|(_, text)| text).collect()
}

/// Runs a recipe with a device of two functions; how many of them QEMU's tree has.
fn functions(name: &str, recipe: &str) -> usize {
    let prepared = prepare(name).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let sockets = ["f0", "f1"].map(|function| directory.path().join(function));
    let none: [&str; 0] = [];
    let log = directory.path().join("log");
    let _daemon = Daemon::start(&prepared.programs.tdispd, &sockets, none, &log).unwrap();
    let script = recipe.replace("/tmp/tdispd-", &format!("{}/", directory.path().display()));
    let output = Command::new("bash")
        .args(["-c", &format!("{WORDS}{script}")])
        .env("qemu", &prepared.testbed.qemu)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (tree, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name}: {said}\n{tree}");
    // The port's description is above those of what is plugged into it.
    let (_, below) = tree.split_once("dev: pcie-root-port").unwrap_or_else(|| panic!("{name}: {tree}"));
    below.matches("dev: vfio-user-pci").count()
}

#[test]
fn commands_start_a_qemu_with_the_device() {
    if prepare("recipes").is_none() {
        return;
    }
    let recipes: Vec<_> = blocks("sh").into_iter().filter(|block| !block.starts_with("tdispd")).collect();
    let found: Vec<_> = recipes.iter().map(|recipe| functions("recipes", recipe)).collect();
    assert_eq!(found, [2, 1, 1], "{recipes:#?}");
}

/// libvirt's part of the command line is what it makes of `<memoryBacking>`; the rest are its arguments as they stand.
#[test]
fn the_domain_of_libvirt_starts_one_too() {
    if prepare("recipes").is_none() {
        return;
    }
    let [text] = blocks("xml")[..] else { panic!("one domain") };
    let domain = roxmltree::Document::parse(text).unwrap();
    let attribute = |element: &str, name: &str| {
        let mut found = domain.descendants().filter(|node| node.has_tag_name(element));
        found.find_map(|node| node.attribute(name)).unwrap_or_else(|| panic!("no {name} of {element}"))
    };
    let memory = [attribute("source", "type"), attribute("access", "mode"), attribute("type", "machine")];
    assert_eq!(memory, ["memfd", "shared", "q35"]);
    let namespace = "http://libvirt.org/schemas/domain/qemu/1.0";
    let arguments = domain.descendants().filter(|node| node.has_tag_name((namespace, "arg")));
    let quoted: Vec<_> = arguments.map(|node| format!("'{}'", node.attribute("value").unwrap())).collect();
    assert!(quoted.iter().all(|argument| argument.matches('\'').count() == 2), "{quoted:?}");
    let recipe = format!(
        "qemu-system-x86_64 -machine q35,memory-backend=pc.ram -m 2G \
         -object memory-backend-memfd,id=pc.ram,size=2G,share=on {}",
        quoted.join(" ")
    );
    assert_eq!(functions("recipes", &recipe), 1);
}
