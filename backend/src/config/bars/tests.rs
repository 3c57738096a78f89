//! BARs as a configuration file has them: what is accepted, and which field is named where one is not.
use proptest::prelude::*;

use super::super::Config;
use super::*;

/// A complete function: every kind, both sides, both widths.
const COMPLETE: &str = r#"
[tdisp]
requests = ["mmio-attribute"]
[[function]]
[[function.bar]]
index = 1
width = 64
prefetchable = true
[[function.bar.range]]
kind = "memory"
size = "64K"
side = "private"
updatable = true
file = "/dev/null"
[[function.bar.range]]
kind = "reserved"
size = 65536
side = "shared"
[[function.bar]]
index = 0
[[function.bar.range]]
kind = "registers"
size = "4K"
side = "private"
[[function.bar.range]]
kind = "doorbells"
size = "4K"
side = "shared"
[[function.bar]]
index = 5
[[function.bar.range]]
kind = "msix-table"
size = "4K"
side = "private"
[[function.bar.range]]
kind = "msix-pba"
size = "4K"
side = "private"
"#;

fn checked(text: &str) -> Result<Config, String> {
    let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

fn places(function: &Function) -> Vec<(u8, u64, mmio::Kind, u64, bool, bool)> {
    let set = function.layout(0).unwrap();
    let of = |bar: &BarLayout| {
        let index = bar.index();
        let place = |range: &mmio::Range| {
            (index, range.offset(), range.kind, range.size(), range.is_private(), range.updatable)
        };
        bar.ranges().iter().map(place).collect::<Vec<_>>()
    };
    set.bars().iter().flat_map(of).collect()
}

#[test]
fn a_file_says_where_everything_is() {
    use mmio::Kind::{Doorbells, Memory, MsixPba, MsixTable, Registers, Reserved};
    let config = checked(COMPLETE).unwrap();
    let function = &config.functions[0];
    assert_eq!(
        places(function),
        [
            (0, 0, Registers, 0x1000, true, false),
            (0, 0x1000, Doorbells, 0x1000, false, false),
            (1, 0, Memory, 0x1_0000, true, true),
            (1, 0x1_0000, Reserved, 0x1_0000, false, false),
            (5, 0, MsixTable, 0x1000, true, false),
            (5, 0x1000, MsixPba, 0x1000, true, false),
        ]
    );
    let set = function.layout(0).unwrap();
    let bars: Vec<_> = set.bars().iter().map(|bar| (bar.width(), bar.prefetchable())).collect();
    let narrow = (AddressWidth::Bits32, false);
    assert_eq!(bars, [narrow, (AddressWidth::Bits64, true), narrow]);
    let files: Vec<_> = function.files(7).collect();
    assert_eq!(files, [(1, 0, Path::new("/dev/null"), "function[7].bar[0].range[0].file".to_owned())]);
}

#[test]
fn what_is_printed_can_be_loaded() {
    let config = checked(COMPLETE).unwrap();
    let printed = config.to_toml().unwrap();
    assert_eq!(checked(&printed).unwrap(), config, "{printed}");
    for part in
        ["[[function.bar]]", "[[function.bar.range]]", "width = 64", "size = \"64K\"", "kind = \"msix-pba\""]
    {
        assert!(printed.contains(part), "{part} is not in\n{printed}");
    }
    let printed = Config::default().for_sockets(1).unwrap().to_toml().unwrap();
    assert!(!printed.contains("bar"), "the default layout is not said:\n{printed}");
}

#[test]
fn the_default_layout_is_what_it_was() {
    use mmio::Kind::{Memory, MsixPba, MsixTable, Registers};
    let half = 512 << 10;
    let registers = (0, 0, Registers, 16 << 10, true, false);
    let shared = (2, half, Memory, half, false, false);
    let table = (4, 0, MsixTable, 4096, false, false);
    let pba = (4, 4096, MsixPba, 4096, false, false);
    let function = Function::default();
    assert_eq!(places(&function), [registers, (2, 0, Memory, half, true, false), shared, table, pba]);
    let function = Function { msix: false, updatable_pages: 2, ..function };
    let fixed = (2, 0, Memory, half - 8192, true, false);
    assert_eq!(places(&function), [registers, fixed, (2, half - 8192, Memory, 8192, true, true), shared]);
    // And as configuration, it is one that could be in a file.
    for function in [Function::default(), function] {
        let explicit =
            Function { bars: function.bars_in_effect().into_owned(), updatable_pages: 0, ..function.clone() };
        explicit.check_bars(0, true).unwrap();
        assert_eq!(explicit.layout(0).unwrap(), function.layout(0).unwrap());
    }
}

#[test]
fn a_relative_file_is_beside_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device.toml");
    let range =
        "[[function.bar.range]]\nkind = \"memory\"\nsize = 4096\nside = \"shared\"\nfile = \"rom.bin\"\n";
    std::fs::write(&path, format!("[[function]]\n[[function.bar]]\nindex = 0\n{range}")).unwrap();
    let config = Config::load(&path).unwrap();
    let file = config.functions[0].bars[0].ranges[0].file.as_deref();
    assert_eq!(file, Some(directory.path().join("rom.bin").as_path()));
}

/// A line of fields, and lines of ranges: kind, size, and what else there is.
type BarLines<'a> = (&'a str, &'a [(&'a str, &'a str, &'a str)]);

/// A function with these BARs.
fn function(before: &str, bars: &[BarLines<'_>]) -> String {
    let mut text = format!("[[function]]\n{before}\n");
    for (fields, ranges) in bars {
        text.push_str(&format!("[[function.bar]]\n{fields}\n"));
        for (kind, size, rest) in *ranges {
            text.push_str(&format!(
                "[[function.bar.range]]\nkind = \"{kind}\"\nsize = {size}\nside = \"private\"\n{rest}\n"
            ));
        }
    }
    text
}

#[test]
fn mistakes_name_their_field_and_what_would_be_right() {
    const PAGE: (&str, &str, &str) = ("memory", "4096", "");
    let many = [PAGE; 65];
    let (table, pba) = (("msix-table", "\"4K\"", ""), ("msix-pba", "\"4K\"", ""));
    let registers = ("registers", "\"4K\"", "");
    type Case<'a> = (String, &'a str, &'a [&'a str]);
    let cases: [Case<'_>; 25] = [
        (function("", &[("index = 0", &[])]), "function[0].bar[0].range: ", &["no ranges"]),
        (function("", &[("index = 6", &[PAGE])]), "function[0].bar[0].index: ", &["32-bit", "BAR 0 to 5"]),
        (
            function("", &[("index = 5\nwidth = 64", &[PAGE])]),
            "function[0].bar[0].index: ",
            &["64-bit", "next"],
        ),
        (
            function("", &[("index = 3", &[PAGE]), ("index = 2\nwidth = 64", &[PAGE])]),
            "function[0].bar[0].index: ",
            &["BAR 2"],
        ),
        (
            function("", &[("index = 3", &[PAGE]), ("index = 3", &[PAGE])]),
            "function[0].bar[1].index: ",
            &["already belongs to BAR 3"],
        ),
        (
            function(
                "",
                &[("index = 0", &[PAGE, PAGE]), ("index = 1", &[PAGE, PAGE, ("memory", "6000", "")])],
            ),
            "function[0].bar[1].range[2].size: ",
            &["6000 bytes", "multiple of 4096"],
        ),
        (
            function("", &[("index = 0", &[("memory", "0", "")])]),
            "function[0].bar[0].range[0].size: ",
            &["0 bytes", "4096"],
        ),
        (
            function("", &[("index = 0", &[("memory", "\"16T\"", "")])]),
            "function[0].bar[0].range[0].size: ",
            &["16T", "no BAR"],
        ),
        (
            function("", &[("index = 0", &[PAGE, ("memory", "\"2G\"", "")])]),
            "function[0].bar[0].range[1].size: ",
            &["2097156K", "32-bit", "2G at most"],
        ),
        (
            function("", &[("index = 0", &[PAGE, ("memory", "\"16K\"", "")])]),
            "function[0].bar[0].range: ",
            &["add up to 20K", "reserved range of 12K would make it 32K"],
        ),
        (function("", &[("index = 0", &many)]), "function[0].bar[0].range: ", &["65 ranges", "64"]),
        (
            function("", &[("index = 0", &[registers]), ("index = 1", &[PAGE, registers])]),
            "function[0].bar[1].range[1].kind: ",
            &["registers", "BAR 0"],
        ),
        (
            function("", &[("index = 0", &[("doorbells", "4096", ""), ("doorbells", "4096", "")])]),
            "function[0].bar[0].range[1].kind: ",
            &["doorbells", "once"],
        ),
        (
            function("", &[("index = 1", &[table, pba]), ("index = 0", &[table, PAGE])]),
            "function[0].bar[0].range[0].kind: ",
            &["MSI-X table", "BAR 0"],
        ),
        (
            function("", &[("index = 0", &[pba])]),
            "function[0].bar[0].range[0].kind: ",
            &["MSI-X PBA", "missing"],
        ),
        (
            function("", &[("index = 0\nwidth = 64", &[("memory", "\"4G\"", ""), table, pba])]),
            "function[0].bar[0].range: ",
            &["add up to", "reserved range"],
        ),
        (
            function(
                "",
                &[(
                    "index = 0\nwidth = 64",
                    &[("memory", "\"4G\"", ""), table, pba, ("reserved", "4294959104", "")],
                )],
            ),
            "function[0].bar[0].range[1].kind: ",
            &["4G", "32 bits"],
        ),
        (
            function("msix = false", &[("index = 0", &[table, pba])]),
            "function[0].bar[0].range[0].kind: ",
            &["msix = false"],
        ),
        (
            function("", &[("index = 0", &[("memory", "4096", "updatable = true")])]),
            "function[0].bar[0].range[0].updatable: ",
            &["mmio-attribute", "tdisp.requests"],
        ),
        (
            function("", &[("index = 0", &[("doorbells", "4096", "revoke = \"keep\"")])]),
            "function[0].bar[0].range[0].revoke: ",
            &["only memory", "private"],
        ),
        (
            function("", &[("index = 0", &[("doorbells", "4096", "updatable = true")])]),
            "function[0].bar[0].range[0].updatable: ",
            &["only memory"],
        ),
        (
            function("", &[("index = 0", &[("reserved", "4096", "file = \"x\"")])]),
            "function[0].bar[0].range[0].file: ",
            &["only memory"],
        ),
        (
            function("updatable_pages = 1", &[("index = 0", &[PAGE])]),
            "function[0].updatable_pages: ",
            &["updatable = true", "[[function.bar.range]]"],
        ),
        (
            format!("[[function]]\n{}", function("", &[("index = 0", &[("memory", "1", "")])])),
            "function[1].bar[0].range[0].size: ",
            &["4096"],
        ),
        (function("updatable_pages = 200", &[]), "function[0].updatable_pages: ", &["0–127"]),
    ];
    for (text, field, parts) in cases {
        let error = checked(&text).unwrap_err();
        assert!(error.starts_with(field), "{text}\n{error}");
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn what_is_no_value_names_its_line() {
    let bar = |fields: &str| format!("[[function]]\n[[function.bar]]\n{fields}\n");
    let range = |fields: &str| {
        format!("[[function]]\n[[function.bar]]\nindex = 0\n[[function.bar.range]]\n{fields}\n")
    };
    for (text, parts) in [
        (bar("index = 0\nwidth = 16"), &["line 4", "32 or 64, not 16"][..]),
        (bar("width = 64"), &["index"]),
        (bar("index = 0\nprefetch = true"), &["line 4", "prefetch", "prefetchable"]),
        (bar("index = 300"), &["line 3", "300"]),
        (range("kind = \"disk\""), &["line 5", "disk", "`msix-table`", "`reserved`"]),
        (range("kind = \"memory\"\nsize = \"16Q\"\nside = \"shared\""), &["line 6", "16Q", "K, M, G or T"]),
        (range("kind = \"memory\"\nsize = -1\nside = \"shared\""), &["line 6", "negative"]),
        (range("kind = \"memory\"\nsize = 1.5\nside = \"shared\""), &["line 6", "\"16K\""]),
        (range("kind = \"memory\"\nsize = 4096\nside = \"tee\""), &["line 7", "`private`", "`shared`"]),
        (range("kind = \"memory\"\nsize = 4096"), &["side"]),
        (range("size = 4096\nside = \"shared\""), &["kind"]),
    ] {
        let error = checked(&text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
    }
}

#[test]
fn names_are_those_of_the_file() {
    for kind in [
        RangeKind::Registers,
        RangeKind::Memory,
        RangeKind::MsixTable,
        RangeKind::MsixPba,
        RangeKind::Doorbells,
        RangeKind::Reserved,
    ] {
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
    }
    for side in [Side::Private, Side::Shared] {
        assert_eq!(serde_json::to_string(&side).unwrap(), format!("\"{}\"", side.name()));
    }
}

fn any_bar() -> impl Strategy<Value = Bar> {
    let kind = proptest::sample::select(vec![
        RangeKind::Registers,
        RangeKind::Memory,
        RangeKind::Memory,
        RangeKind::Doorbells,
        RangeKind::Reserved,
        RangeKind::Reserved,
    ]);
    let size =
        prop_oneof![8 => (0_u32..6).prop_map(|shift| 4096 << shift), 1 => 0_u64..20_000, 1 => any::<u64>()];
    let side = prop_oneof![Just(Side::Private), Just(Side::Shared)];
    let range = (kind, size, side, any::<bool>()).prop_map(|(kind, size, side, updatable)| Range {
        kind,
        size,
        side,
        updatable: updatable && kind == RangeKind::Memory,
        revoke: None,
        file: None,
    });
    let width = prop_oneof![Just(Width::Bits32), Just(Width::Bits64)];
    (0_u8..6, width, any::<bool>(), proptest::collection::vec(range, 1..4))
        .prop_map(|(index, width, prefetchable, ranges)| Bar { index, width, prefetchable, ranges })
}

proptest! {
    /// What is accepted comes out as it was asked for, range behind range; what is refused names a field of this function.
    #[test]
    fn accepted_bars_have_no_gap_and_add_up(bars in proptest::collection::vec(any_bar(), 1..4)) {
        let function = Function { bars, ..Function::default() };
        match function.check_bars(3, true) {
            Ok(()) => {
                let set = function.layout(3).unwrap();
                prop_assert_eq!(set.bars().len(), function.bars.len());
                for bar in &function.bars {
                    let placed = set.bars().iter().find(|placed| placed.index() == bar.index).unwrap();
                    prop_assert_eq!(placed.ranges().len(), bar.ranges.len());
                    let mut next = 0;
                    for (placed, range) in placed.ranges().iter().zip(&bar.ranges) {
                        prop_assert_eq!((placed.offset(), placed.size()), (next, range.size));
                        next += range.size;
                    }
                    prop_assert_eq!(next, placed.size());
                    prop_assert!(next.is_power_of_two());
                }
                let config = Config { functions: vec![function], ..Config::default() };
                prop_assert_eq!(toml::from_str::<Config>(&config.to_toml().unwrap()).unwrap(), config);
            }
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.starts_with("function[3].bar["), "{}", error);
            }
        }
    }
}
