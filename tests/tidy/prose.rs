//! Comments, documents and sentences for users are in plain English and use the terms of the field.

use super::{File, files, no_findings, root, sources};

/// Words that readers of this field do not expect, each with what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("anew", "again"),
    ("anybody", "anyone, or name the role: an operator, a client"),
    ("at stake", "at risk"),
    ("befall", "happen to, affect"),
    ("befalls", "happens to, affects"),
    ("bug of ours", "a bug in the engine, in the server"),
    ("comes round", "is due"),
    ("everybody", "everyone, or name them: all watchers"),
    ("for ever", "forever"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("going on", "in progress"),
    ("gone on", "continued"),
    ("hear of", "receive, learn about"),
    ("hears of", "receives, learns about"),
    ("in vain", "without effect"),
    ("lately", "recently"),
    ("mend", "fix, repair"),
    ("mended", "fixed, repaired"),
    ("mends", "fixes, repairs"),
    ("nobody", "no one, or say what is unknown: the outcome is unknown"),
    ("nobody's", "name the owner, or say that there is none"),
    ("puts at stake", "puts at risk"),
    ("somebody", "name the role: an operator, another writer, another server"),
    ("somebody's", "name the owner"),
    ("steer", "control"),
    ("steers", "controls"),
    ("take up", "recover, resume"),
    ("taken up", "recovered, resumed"),
    ("takes up", "recovers, resumes"),
    ("taking up", "recovering, resuming"),
    ("told", "notified, received, reported, configured"),
    ("took up", "recovered, resumed"),
    ("weightiest", "most important"),
    ("went on", "continued"),
    ("what became of", "the outcome of"),
    ("what came of", "the outcome of"),
    ("whoever", "name the role: the client, the caller, the owner"),
];

/// Uses that are passed over: the start of a path, words of the line, and the reason.
const PASSED_OVER: &[(&str, &str, &str)] = &[
    (".ci/advisory-db/", "", "texts of the advisory database"),
    ("fuzz/corpus/", "", "inputs that a fuzzer has found"),
    ("tests/plans/", "", "inputs with and without mistakes"),
    ("tests/tidy/prose.rs", "", "the list itself, and what its tests plant"),
    ("docs/performance.md", "", "texts from before this list"),
    ("", "tells whoever sends it back", "a pinned text: the digest of plan/rma covers it"),
];

/// The words that a line must have to be passed over under this path.
fn passed_over(path: &str, line: &str) -> bool {
    let applies = |(start, words, _): &&(&str, &str, &str)| {
        path.starts_with(start) && (words.is_empty() || line.contains(words))
    };
    PASSED_OVER.iter().any(|entry| applies(&entry))
}

/// A piece of prose: lines that belong together, with the number of the first.
struct Prose {
    line: usize,
    text: String,
}

impl Prose {
    /// The banned words, each as a whole word in any case, with its line and its replacement.
    fn banned(&self) -> Vec<(usize, &'static str, &'static str)> {
        let mut words = Vec::new();
        for (at, line) in self.text.lines().enumerate() {
            let is_part = |c: char| c.is_alphanumeric() || c == '\'' || c == '_';
            let parts = line.split(|c| !is_part(c)).map(|word| word.trim_matches('\''));
            let parts = parts.filter(|word| !word.is_empty());
            words.extend(parts.map(|word| (self.line + at, word.to_lowercase())));
        }
        let mut found = Vec::new();
        for (phrase, instead) in BANNED {
            let parts: Vec<&str> = phrase.split(' ').collect();
            for window in words.windows(parts.len()) {
                if window.iter().map(|(_, word)| word.as_str()).eq(parts.iter().copied()) {
                    found.push((window[0].0, *phrase, *instead));
                }
            }
        }
        found.sort_unstable();
        found
    }
}

/// Neighbouring lines for which `prose` gives some text, as one piece each.
fn pieces<'a>(text: &'a str, prose: impl Fn(&'a str) -> Option<&'a str>) -> Vec<Prose> {
    let mut found: Vec<Prose> = Vec::new();
    let mut is_open = false;
    for (at, line) in text.lines().enumerate() {
        let Some(line) = prose(line) else {
            is_open = false;
            continue;
        };
        match found.last_mut().filter(|_| is_open) {
            Some(open) => open.text += &format!("\n{line}"),
            None => found.push(Prose { line: at + 1, text: line.to_owned() }),
        }
        is_open = true;
    }
    found
}

/// The comment of a line: after `//` or `#` at its beginning, or after `//` behind code without quotes.
fn comment<'a>(line: &'a str, marks: &[&str]) -> Option<&'a str> {
    let text = line.trim_start();
    if let Some(mark) = marks.iter().find(|mark| text.starts_with(**mark)) {
        let end = text.find(|c| !mark.contains(c)).unwrap_or(text.len());
        return Some(text[end..].trim_start_matches('!'));
    }
    let (code, comment) = text.split_once(" // ")?;
    (marks.contains(&"//") && !code.contains('"')).then_some(comment)
}

/// The prose of a file: comments, and the whole of documents and golden texts.
fn prose_of(file: &File) -> Vec<Prose> {
    let ends = |ends: &[&str]| ends.iter().any(|end| file.path.ends_with(end));
    if ends(&[".md", ".snap"]) {
        pieces(&file.text, |line| (!line.trim().is_empty()).then_some(line))
    } else if ends(&[".rs", ".proto", ".ts"]) {
        pieces(&file.text, |line| comment(line, &["//"]))
    } else if ends(&[".toml", ".py", ".sh", ".yaml"]) || file.path == ".ci/run" {
        pieces(&file.text, |line| comment(line, &["#"]))
    } else {
        Vec::new()
    }
}

/// What a scan prints: place, word, replacement.
fn findings(file: &File, prose: &[Prose]) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let banned = prose.iter().flat_map(Prose::banned);
    let kept = banned.filter(|(line, ..)| {
        !passed_over(&file.path, lines.get(line - 1).copied().unwrap_or_default())
    });
    kept.map(|(line, word, instead)| format!("{}:{line}: {word}: write {instead}", file.path))
        .collect()
}

/// The string literals of Rust code. Comments, characters and lifetimes are passed over.
fn literals(code: &str) -> Vec<Prose> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("'\"'") {
            3
        } else if let Some(escape) = rest.strip_prefix("'\\") {
            escape.find('\'').map_or(2, |end| end + 3)
        } else if let Some((hashes, raw)) = raw_start(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let length = rest[raw..].find(&end).map_or(rest.len(), |at| raw + at + end.len());
            found.push(Prose { line, text: rest[raw..length].to_owned() });
            length
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let length = end.map_or(rest.len(), |end| end + 2);
            found.push(Prose { line, text: rest[1..length].to_owned() });
            length
        } else {
            c.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The number of hashes of a raw string that begins here, and the length of its beginning.
fn raw_start(text: &str) -> Option<(usize, usize)> {
    let hashes = text.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    hashes[count..].starts_with('"').then_some((count, count + 2))
}

#[test]
fn comments_and_documents_use_the_terms_of_the_field() {
    let found: Vec<String> =
        files("").iter().flat_map(|file| findings(file, &prose_of(file))).collect();
    no_findings("words with a plainer one", &found);
}

#[test]
fn sentences_for_users_use_the_terms_of_the_field() {
    let code = sources().into_iter().filter(|file| {
        !file.is_test()
            && !["src/store/suite/", "src/testing.rs"]
                .iter()
                .any(|path| file.path.starts_with(path))
    });
    let found: Vec<String> = code
        .flat_map(|file| {
            let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            findings(&file, &literals(code))
        })
        .collect();
    no_findings("words with a plainer one", &found);
}

/// Diagnostics of plan files have the form that editors know from compilers; everything else says `Error:`.
#[test]
fn errors_begin_in_one_way() {
    let mut found = Vec::new();
    for File { path, text } in files("snapshots") {
        if path.starts_with("snapshots/plan_broken_") {
            continue;
        }
        for (place, line) in text.lines().enumerate() {
            if ["error:", "ERROR:"].iter().any(|start| line.trim_start().starts_with(start)) {
                found.push(format!("{path}:{}: {line}", place + 1));
            }
        }
    }
    no_findings("errors that do not begin with `Error:`", &found);
}

/// The findings in a file with this path and text.
fn found(path: &str, text: &str) -> Vec<String> {
    let file = File { path: path.to_owned(), text: text.to_owned() };
    findings(&file, &prose_of(&file))
}

#[test]
fn a_planted_word_is_found_with_its_place_and_its_replacement() {
    let expected = |path: &str, line: usize| vec![format!("{path}:{line}: anew: write again")];
    for (path, text, line) in [
        ("src/a.rs", "/// Begins\n/// anew.\nfn a() {}\n", 2),
        ("src/a.rs", "let a = 1; // anew\n", 1),
        ("proto/a.proto", "// Begins Anew.\n", 1),
        ("docs/a.md", "It begins\n`anew`.\n", 2),
        ("plans/a.toml", "a = 1\n# anew\n", 2),
        ("snapshots/a.snap", "anew\n", 1),
    ] {
        assert_eq!(found(path, text), expected(path, line), "{path}");
    }
    // A phrase over a line break, which ends where a comment ends.
    let broken = found("src/a.rs", "// the run goes\n// on, told\n");
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(broken[0].starts_with("src/a.rs:1: goes on: write continues"), "{broken:?}");
    assert!(found("src/a.rs", "// goes\nlet a = 1;\n// on\n").is_empty());
}

#[test]
fn names_and_parts_of_words_are_no_findings() {
    assert!(found("src/a.rs", "// nobodyish, `taken_up`, retold, 'a'\n").is_empty());
    assert!(found("src/a.rs", "let told = \"// anew\";\n").is_empty());
    assert!(found("snapshots/a.snap", "and tells whoever sends it back.\n").is_empty());
    for (_, _, reason) in PASSED_OVER {
        assert!(!reason.is_empty());
    }
    assert!(root().join("snapshots").is_dir());
}

#[test]
fn literals_are_found_where_they_stand() {
    let code = "// \"anew\"\nlet a = \"x \\\" told\";\nlet b = '\"'; let c = r#\"in \" vain\"#; let d: &'static str = \"e\";";
    let texts = literals(code);
    assert_eq!(texts.iter().map(|text| text.line).collect::<Vec<_>>(), [2, 3, 3]);
    assert_eq!(texts[0].text, "x \\\" told\"");
    assert_eq!(texts[2].text, "e\"");
    assert_eq!(texts[0].banned(), [(2, "told", "notified, received, reported, configured")]);
}
