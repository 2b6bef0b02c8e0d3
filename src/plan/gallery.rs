//! A gallery of broken plans: each mistake that an author can make, and its diagnostic.

use super::diagnostic::line_column;
use super::*;

macro_rules! broken {
    ($($name:literal),+ $(,)?) => {
        /// Name, path and content of each broken plan.
        const BROKEN: &[(&str, &str, &[u8])] = &[$((
            $name,
            concat!("tests/plans/broken/", $name, ".toml"),
            include_bytes!(concat!("../../tests/plans/broken/", $name, ".toml")),
        ),)+];
    };
}

broken![
    "01-unknown-key",
    "02-unknown-action",
    "03-duplicate-step",
    "04-bad-duration",
    "05-missing-argument",
    "06-unknown-argument",
    "07-wrong-type",
    "08-not-one-of",
    "09-destructive-without-on-unknown",
    "10-retry-not-idempotent",
    "11-no-steps",
    "12-not-utf8",
    "13-empty",
    "14-only-comments",
    "15-syntax",
    "16-syntax-duplicate-key",
    "17-needs",
    "18-param-references",
    "19-param-declarations",
    "20-unknown-names",
    "21-missing-keys",
    "22-bad-id",
    "23-out-of-range",
    "24-destructive-flag",
    "25-destructive-flag-for-nothing",
    "26-guards",
    "27-compensation",
    "28-multi-byte",
    "29-empty-lists",
    "30-too-much-text",
    "31-too-many-steps",
    "32-syntax-in-a-list",
    "33-texts",
    "34-engine-steps",
    "35-roles",
    "36-destroys-data",
    "37-allowed-for-nothing",
    "38-role-of-a-plan",
    "40-duplicate-id-a",
    "40-duplicate-id-b",
    "41-two-defaults-a",
    "41-two-defaults-b",
];

macro_rules! built_in {
    ($($name:literal),+) => { [$(SourceFile {
        name: concat!("plans/", $name, ".toml"),
        bytes: include_bytes!(concat!("../../plans/", $name, ".toml")),
    },)+] };
}

const BUILT_IN_FILES: [SourceFile<'static>; 5] =
    built_in!["net-reconfig", "reboot", "repave-join", "rma", "upgrade"];

fn file(name: &str) -> SourceFile<'static> {
    let &(_, name, bytes) = BROKEN.iter().find(|(other, _, _)| *other == name).unwrap();
    SourceFile { name, bytes }
}

fn rendered(files: &[SourceFile<'_>]) -> String {
    render(files, &compile(files).unwrap_err(), false)
}

#[test]
fn each_mistake_is_explained() {
    for &(name, _, _) in BROKEN.iter().filter(|(name, _, _)| *name < "40") {
        crate::assert_golden!(format!("plan_broken_{name}"), rendered(&[file(name)]));
    }
}

#[test]
fn clashes_show_both_places() {
    let ids = [file("40-duplicate-id-a"), file("40-duplicate-id-b")];
    crate::assert_golden!("plan_broken_40-duplicate-id", rendered(&ids));
    let defaults = [file("41-two-defaults-a"), file("41-two-defaults-b")];
    crate::assert_golden!("plan_broken_41-two-defaults", rendered(&defaults));
}

#[test]
fn all_mistakes_of_all_files_come_at_once() {
    let mut files = BUILT_IN_FILES.to_vec();
    files.extend(["02-unknown-action", "12-not-utf8", "13-empty", "41-two-defaults-a"].map(file));
    crate::assert_golden!("plan_broken_50-several-files", rendered(&files));
}

#[test]
fn colors_are_only_there_when_asked_for() {
    let files = [file("02-unknown-action")];
    let diagnostics = compile(&files).unwrap_err();
    assert!(!render(&files, &diagnostics, false).contains('\u{1b}'));
    assert!(render(&files, &diagnostics, true).contains("\u{1b}["));
}

#[test]
fn each_mistake_has_a_place_and_a_hint() {
    for &(name, path, bytes) in BROKEN {
        let Err(diagnostics) = compile(&[SourceFile { name: path, bytes }]) else {
            assert!(name.starts_with('4'), "{name}");
            continue;
        };
        for diagnostic in diagnostics {
            assert!(diagnostic.code.starts_with("plan::"), "{diagnostic:?}");
            assert!(diagnostic.help.is_some(), "{diagnostic:?}");
            let (line, column) = line_column(bytes, diagnostic.labels[0].span.start);
            let text = render(
                &[SourceFile { name: path, bytes }],
                std::slice::from_ref(&diagnostic),
                false,
            );
            assert!(text.contains(&format!("{path}:{line}:{column}\n")), "{text}");
            for label in &diagnostic.labels {
                assert!(
                    label.span.start <= label.span.end && label.span.end <= bytes.len(),
                    "{diagnostic:?}"
                );
            }
        }
    }
}

#[test]
fn large_files_are_refused_unread() {
    let bytes = vec![b'#'; limits::FILE_BYTES_MAX + 1];
    let files = [SourceFile { name: "large.toml", bytes: &bytes }];
    let diagnostics = compile(&files).unwrap_err();
    assert_eq!(diagnostics[0].code, "plan::too-large");
    assert!(render(&files, &diagnostics, false).len() < 1_000);
}

#[test]
fn mistakes_without_end_are_cut_short() {
    let text: String = (0..60).map(|number| format!("key-{number} = 1\n")).collect();
    let files = [SourceFile { name: "x.toml", bytes: text.as_bytes() }];
    let diagnostics = compile(&files).unwrap_err();
    assert_eq!(diagnostics.len(), limits::DIAGNOSTICS_PER_FILE_MAX + 1);
    let last = diagnostics.last().unwrap();
    // In addition to the 60 keys, id, phases and steps are missing; those three are reported at the first line.
    assert_eq!(
        (last.code, last.message.as_str()),
        ("plan::too-many-errors", "13 more errors in this file")
    );
}

#[test]
fn too_many_files_are_refused_unread() {
    let files = vec![SourceFile { name: "x.toml", bytes: b"" }; limits::FILES_MAX + 1];
    let diagnostics = compile(&files).unwrap_err();
    assert_eq!(diagnostics.len(), 1);
    assert!(render(&files, &diagnostics, false).contains("1025 plan files are too many"));
}

#[test]
fn build_script_embedded_what_the_files_say() {
    let plans = compile(&BUILT_IN_FILES)
        .unwrap_or_else(|diagnostics| panic!("{}", render(&BUILT_IN_FILES, &diagnostics, false)));
    assert_eq!(registry::BUILT_IN, plans);
}

#[test]
fn built_in_plans_have_their_steps() {
    let steps = |plan: &Plan| {
        let names: Vec<&str> = plan.steps.iter().map(|step| step.name.as_ref()).collect();
        format!("{}: {}", plan.id, names.join(" → "))
    };
    let table: Vec<String> = registry::BUILT_IN.iter().map(steps).collect();
    assert_eq!(
        table,
        [
            "plan/net-reconfig: apply-net-config → verify-connectivity",
            "plan/reboot: reboot",
            "plan/repave-join: set-netboot → repave → mint-join → join → verify",
            "plan/rma: drain → wipe → notify",
            "plan/upgrade: drain → set-netboot → repave → mint-join → join → verify",
        ]
    );
}

mod soup {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of plans, so that random text gets past the TOML parser more often than random bytes do.
    fn piece() -> impl Strategy<Value = Vec<u8>> {
        const PIECES: &[&str] = &[
            "id",
            "=",
            "\"plan/x\"",
            "\n",
            "[[steps]]",
            "[params.a]",
            "[result]",
            "name",
            "action",
            "\"drain\"",
            "\"repave\"",
            "args",
            "{",
            "}",
            "[",
            "]",
            ",",
            "param",
            "timeout",
            "\"5m\"",
            "7",
            "true",
            "when",
            "needs",
            "retry",
            "漢",
            "\"",
            "'''",
            ".",
            "kind",
            "\"string\"",
            "compensation",
            "1e999",
            "0x",
            "2026-01-01",
            "\r",
            "\u{feff}",
            "allowed_phases",
            "\"READY\"",
            "on_unknown",
            "on_failure",
            "until",
            "\"{a}\"",
            "\"wait\"",
            " ",
        ];
        prop_oneof![
            20 => prop::sample::select(PIECES).prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..8),
        ]
    }

    fn survives(bytes: &[u8]) {
        let files = [SourceFile { name: "soup.toml", bytes }];
        if let Err(diagnostics) = compile(&files) {
            assert!(!diagnostics.is_empty());
            assert!(render(&files, &diagnostics, false).contains("in 1 plan file"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_never_panic(pieces in prop::collection::vec(piece(), 0..60)) {
            survives(&pieces.concat());
        }

        #[test]
        fn damaged_plans_never_panic(
            plan in prop::sample::select(&BUILT_IN_FILES[..]),
            edits in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(piece())), 1..6),
        ) {
            let mut bytes = plan.bytes.to_vec();
            for (at, insert) in edits {
                let at = at.index(bytes.len());
                match insert {
                    Some(insert) => { bytes.splice(at..at, insert); }
                    None => { bytes.remove(at); }
                }
            }
            survives(&bytes);
        }
    }
}
