//! Sentences that users read are in plain English and in the project's own words.

use super::{File, files, no_findings, root, sources};

/// Words that have a plainer or a more exact one: recover, resume, continue, again, an operator, another, unknown.
const BANNED: &[&str] = &[
    "told",
    "nobody",
    "nobody's",
    "somebody",
    "somebody's",
    "whoever",
    "anew",
    "taken up",
    "goes on",
    "in vain",
    "weightiest",
];

/// What has one of the words for a reason.
const EXEMPT: &[(&str, &str)] = &[
    ("src/store/suite/", "assertions of a suite for stores: no user reads them"),
    (
        "snapshots/plan_canonical.snap",
        "the text of the built-in plans stays as released plans have it",
    ),
];

fn is_exempt(path: &str) -> bool {
    EXEMPT.iter().any(|(exempt, _)| path.starts_with(exempt))
}

/// The banned words of a text, each as a whole word, in any case.
fn banned(text: &str) -> Vec<&'static str> {
    let plain =
        |c: char| if c.is_alphanumeric() || c == '\'' { c.to_ascii_lowercase() } else { ' ' };
    let words: Vec<String> = text.split(|c: char| plain(c) == ' ').map(str::to_lowercase).collect();
    let words: Vec<&str> =
        words.iter().map(|word| word.trim_matches('\'')).filter(|word| !word.is_empty()).collect();
    let has = |phrase: &&&str| {
        let phrase: Vec<&str> = phrase.split(' ').collect();
        words.windows(phrase.len()).any(|window| window == phrase)
    };
    BANNED.iter().filter(has).copied().collect()
}

/// The string literals of Rust code, each with the number of its line. Comments, characters and lifetimes are passed over.
fn literals(code: &str) -> Vec<(usize, String)> {
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
            found.push((line, rest[raw..length].to_owned()));
            length
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c: char| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let length = end.map_or(rest.len(), |end| end + 2);
            found.push((line, rest[1..length].to_owned()));
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
fn sentences_for_users_have_none_of_the_banned_words() {
    let mut found = Vec::new();
    let code = sources().into_iter().filter(|file| !file.is_test() && !is_exempt(&file.path));
    for file in code {
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (line, text) in literals(code) {
            for word in banned(&text) {
                found.push(format!("{}:{line}: {word}", file.path));
            }
        }
    }
    // Help, errors, tables and sessions as users see them.
    for File { path, text } in files("snapshots").into_iter().filter(|file| !is_exempt(&file.path))
    {
        for (place, line) in text.lines().enumerate() {
            for word in banned(line) {
                found.push(format!("{path}:{}: {word}", place + 1));
            }
        }
    }
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

#[test]
fn banned_words_are_found_where_they_stand() {
    assert_eq!(banned("Nobody's fault: the run goes on"), ["nobody's", "goes on"]);
    assert!(banned("nobodyish, retold, go on, 'a'").is_empty());
    let code = "// \"anew\"\nlet a = \"x \\\" told\";\nlet b = '\"'; let c = r#\"in \" vain\"#; let d: &'static str = \"e\";";
    let texts: Vec<(usize, String)> = literals(code);
    assert_eq!(texts.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 3]);
    assert_eq!(texts[0].1, "x \\\" told\"");
    assert_eq!(texts[2].1, "e\"");
    assert!(root().join("snapshots").is_dir());
}
