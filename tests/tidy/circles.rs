//! No circle of imports: neither between folders nor inside one. What a file names of another orders the two, so that
//! each can be read with only what stands below it in mind.
//!
//! A `mod` declaration is no import. Everything else is: a file that names an item of its parent stands above the parent,
//! and a parent that names or exports an item of its child stands above the child. Both at once are a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, no_findings, sources};

/// A path of modules below the crate: `["store", "sqlite"]`.
type Module = Vec<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Colons,
    Sign(char),
}

/// Words and signs of Rust code, without comments, texts and numbers.
fn tokens(code: &str) -> Vec<Token> {
    let chars: Vec<char> = code.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let mut place = 0;
    while place < chars.len() {
        let c = at(place);
        if c == '/' && at(place + 1) == '/' {
            while place < chars.len() && at(place) != '\n' {
                place += 1;
            }
        } else if c == '"' {
            place = end_of_text(&chars, place);
        } else if c == 'r'
            && (at(place + 1) == '"' || (at(place + 1) == '#' && at(place + 2) == '"'))
        {
            let hash = if at(place + 1) == '#' { "#" } else { "" };
            let end = format!("\"{hash}");
            let open = place + 2 + hash.len();
            let rest: String = chars[open..].iter().collect();
            let length = rest.find(&end).map_or(rest.len(), |bytes| rest[..bytes].chars().count());
            place = open + length + end.len();
        } else if c == '\'' && at(place + 1) == '\\' {
            place += 3;
            while place < chars.len() && at(place) != '\'' {
                place += 1;
            }
            place += 1;
        } else if c == '\'' && at(place + 2) == '\'' {
            place += 3;
        } else if c.is_alphabetic() || c == '_' {
            let start = place;
            while at(place).is_alphanumeric() || at(place) == '_' {
                place += 1;
            }
            tokens.push(Token::Word(chars[start..place].iter().collect()));
        } else if c == ':' && at(place + 1) == ':' {
            tokens.push(Token::Colons);
            place += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Sign(c));
            }
            place += 1;
        }
    }
    tokens
}

/// Where the text that begins at `place` has ended.
fn end_of_text(chars: &[char], mut place: usize) -> usize {
    place += 1;
    while place < chars.len() && chars[place] != '"' {
        place += if chars[place] == '\\' { 2 } else { 1 };
    }
    place + 1
}

/// A path that is imported, and the name that it has here.
type Import = (Vec<String>, String);

/// Every path that code names: imports, and those inside other code.
fn paths(tokens: &[Token]) -> (Vec<Import>, Vec<Vec<String>>) {
    let (mut imports, mut inline) = (Vec::new(), Vec::new());
    let mut place = 0;
    while place < tokens.len() {
        match &tokens[place] {
            // `use<'a>` says what a type captures, and imports nothing.
            Token::Word(word)
                if word == "use" && tokens.get(place + 1) != Some(&Token::Sign('<')) =>
            {
                place = import(tokens, place + 1, &[], &mut imports);
            }
            Token::Word(word) => {
                let mut path = vec![word.clone()];
                while let (Some(Token::Colons), Some(Token::Word(next))) =
                    (tokens.get(place + 1), tokens.get(place + 2))
                {
                    path.push(next.clone());
                    place += 2;
                }
                if path.len() > 1 {
                    inline.push(path);
                }
                place += 1;
            }
            Token::Colons | Token::Sign(_) => place += 1,
        }
    }
    (imports, inline)
}

/// Reads one tree of a `use`, and says where it ends.
fn import(tokens: &[Token], mut place: usize, before: &[String], found: &mut Vec<Import>) -> usize {
    let mut path = before.to_vec();
    let mut name = None;
    while let Some(token) = tokens.get(place) {
        match token {
            Token::Word(word) if word == "as" => {
                if let Some(Token::Word(alias)) = tokens.get(place + 1) {
                    name = Some(alias.clone());
                }
                place += 2;
            }
            Token::Word(word) => {
                // `{self}` names what stands before the braces.
                if word != "self" || path.is_empty() {
                    path.push(word.clone());
                }
                place += 1;
            }
            Token::Sign('{') => {
                place += 1;
                while place < tokens.len() && tokens[place] != Token::Sign('}') {
                    place = import(tokens, place, &path, found);
                    if tokens.get(place) == Some(&Token::Sign(',')) {
                        place += 1;
                    }
                }
                return place + 1;
            }
            Token::Sign(',' | '}' | ';') => break,
            Token::Colons | Token::Sign(_) => place += 1,
        }
    }
    let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
    found.push((path, name));
    place
}

/// The module that a file holds.
fn module_of(path: &str) -> Module {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inner.split('/').map(str::to_owned).collect()
}

/// What a path names, from a module that sees it: its absolute form, or nothing if it is of another crate.
fn absolute(
    path: &[String],
    here: &Module,
    aliases: &BTreeMap<String, Module>,
    modules: &BTreeMap<Module, String>,
) -> Option<Module> {
    let first = path.first()?;
    let (mut whole, rest) = match first.as_str() {
        "crate" => (Vec::new(), &path[1..]),
        "self" => (here.clone(), &path[1..]),
        "super" => {
            let climbs = path.iter().take_while(|part| *part == "super").count();
            (here[..here.len().checked_sub(climbs)?].to_vec(), &path[climbs..])
        }
        name => {
            let child: Module = here.iter().cloned().chain([name.to_owned()]).collect();
            match aliases.get(name) {
                Some(target) => (target.clone(), &path[1..]),
                None if modules.contains_key(&child) => (child, &path[1..]),
                None => return None,
            }
        }
    };
    whole.extend(rest.iter().cloned());
    Some(whole)
}

/// The file of the deepest module on a path, and whether the path names something inside it.
fn file_of<'a>(path: &Module, modules: &'a BTreeMap<Module, String>) -> Option<(&'a str, bool)> {
    (1..=path.len()).rev().find_map(|length| {
        let file = modules.get(&path[..length])?;
        Some((file.as_str(), length < path.len()))
    })
}

/// Files, each with the files that it names and what it names of them.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn graph(files: &[File]) -> Graph {
    let judged = || {
        let inside =
            |file: &&File| !file.is_test() && file.path != "src/lib.rs" && file.layer() != "bin";
        files.iter().filter(inside)
    };
    let modules: BTreeMap<Module, String> =
        judged().map(|file| (module_of(&file.path), file.path.clone())).collect();
    let mut graph = Graph::new();
    for file in judged() {
        let here = module_of(&file.path);
        let (imports, inline) = paths(&tokens(&file.code()));
        let mut aliases = BTreeMap::new();
        for (path, name) in &imports {
            if let Some(whole) = absolute(path, &here, &BTreeMap::new(), &modules) {
                aliases.insert(name.clone(), whole);
            }
        }
        let of_imports = imports.iter().map(|(path, _)| path);
        let names = graph.entry(file.path.clone()).or_default();
        for path in of_imports.chain(&inline) {
            let Some(whole) = absolute(path, &here, &aliases, &modules) else { continue };
            // A module that is imported is named where something of it is.
            let Some((target, true)) = file_of(&whole, &modules) else { continue };
            if target != file.path {
                names.entry(target.to_owned()).or_default().extend(whole.last().cloned());
            }
        }
    }
    graph
}

/// Files that can be reached from a file.
fn reachable<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut pending: Vec<&str> = vec![from];
    while let Some((_, names)) = pending.pop().and_then(|file| graph.get_key_value(file)) {
        for target in names.keys() {
            if reached.insert(target.as_str()) {
                pending.push(target);
            }
        }
    }
    reached
}

/// Sets of files that name each other in a circle.
fn circles(graph: &Graph) -> Vec<BTreeSet<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (file.as_str(), reachable(graph, file))).collect();
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for (file, from) in &reached {
        if from.contains(file) && !circles.iter().any(|circle| circle.contains(file)) {
            let back =
                |other: &&&str| reached.get(**other).is_some_and(|there| there.contains(file));
            circles.push(from.iter().filter(back).copied().collect());
        }
    }
    circles
}

/// Each import inside a circle, as `file -> file: names`. To take out one import of each pair opens it.
fn describe(graph: &Graph, circle: &BTreeSet<&str>) -> Vec<String> {
    let mut lines = vec![format!("a circle of {} files:", circle.len())];
    for file in circle {
        for (target, names) in &graph[*file] {
            if circle.contains(target.as_str()) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                lines.push(format!("  {file} -> {target}: {}", names.join(", ")));
            }
        }
    }
    lines
}

#[test]
fn imports_make_no_circle() {
    let graph = graph(&sources());
    let circles = circles(&graph);
    let found: Vec<String> = circles.iter().flat_map(|circle| describe(&graph, circle)).collect();
    no_findings("circles of imports", &found);
}

#[cfg(test)]
mod the_check {
    use super::*;

    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        let files: Vec<File> = files.iter().map(file).collect();
        let graph = graph(&files);
        circles(&graph).iter().flat_map(|circle| describe(&graph, circle)).collect()
    }

    #[test]
    fn sees_siblings_parents_children_and_aliases() {
        let down = (
            "src/a/mod.rs",
            "mod b; mod c; use b::{B, deep::D as E}; fn f() -> impl Sized + use<> { c::f() }",
        );
        let b = ("src/a/b.rs", "use super::c; fn f(_: c::C) { let x = \"super::f\"; } // super::f");
        let c = ("src/a/c.rs", "pub struct C;");
        let deep = ("src/a/b/deep.rs", "use std::fmt; pub struct D;");
        assert_eq!(edges(&[down, b, c, deep]), [""; 0]);
        for (text, edge) in [
            ("use super::f;", "  src/a/c.rs -> src/a/mod.rs: f"),
            ("fn f() { super::b::B::new() }", "  src/a/c.rs -> src/a/b.rs: new"),
            (
                "use crate::a::{b::{self}, x as y}; fn f() { b::go() }",
                "  src/a/c.rs -> src/a/b.rs: go",
            ),
            ("use crate::a as other; fn f() { other::f() }", "  src/a/c.rs -> src/a/mod.rs: f"),
        ] {
            let found = edges(&[down, b, ("src/a/c.rs", text), deep]);
            assert!(found.iter().any(|line| line == edge), "{text}: {found:?}");
        }
    }

    #[test]
    fn ends_a_text_where_the_compiler_does() {
        let words = |code: &str| tokens(code).len();
        assert_eq!(words(r##"r#"a " b"# x"##), 1);
        assert_eq!(words(r#""a \" b" x"#), 1);
        assert_eq!(words(r"'\'' 'a' x"), 1);
        assert_eq!(words("&'a x"), 4);
    }
}
