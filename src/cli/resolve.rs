//! Resolution of ids as people type them: unique parts, and suggestions for typing mistakes.

use super::error::Error;
use super::output::sanitized;

/// Shortest part of an id that is accepted for it: less of one matches by chance.
pub(crate) const PART_MIN: usize = 4;
/// Most candidates named in an error.
const CANDIDATES_SHOWN_MAX: usize = 5;

/// Refuses a name that says nothing, as a variable gives it that is not set: it must not stand for anything.
///
/// # Errors
/// Usage.
pub(crate) fn check_name(kind: &str, name: &str) -> Result<(), Error> {
    if name.chars().any(|c| !c.is_whitespace() && !is_hidden(c)) {
        return Ok(());
    }
    Err(Error::usage(
        format!("the name of the {kind} is empty"),
        format!("name a {kind}; in a script, a variable that is not set gives an empty name"),
    ))
}

fn is_hidden(c: char) -> bool {
    crate::text::hidden_in(c.encode_utf8(&mut [0; 4])).is_some()
}

/// The one id that contains `part`; `None` if there is none.
///
/// # Errors
/// Usage, naming the candidates, if there are several.
pub(crate) fn by_part<'a>(
    kind: &str,
    part: &str,
    ids: impl Iterator<Item = &'a str>,
) -> Result<Option<String>, Error> {
    let part = part.to_ascii_lowercase();
    only(kind, "have", &part, ids.filter(|id| id.contains(&part)).collect())
}

/// The one id that begins with `prefix`; `None` if there is none.
///
/// # Errors
/// Usage, naming the candidates, if there are several.
pub(crate) fn by_prefix<'a>(
    kind: &str,
    prefix: &str,
    ids: impl Iterator<Item = &'a str>,
) -> Result<Option<String>, Error> {
    only(kind, "begin with", prefix, ids.filter(|id| id.starts_with(prefix)).collect())
}

fn only(kind: &str, how: &str, part: &str, found: Vec<&str>) -> Result<Option<String>, Error> {
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).to_owned())),
        several => {
            let mut shown: Vec<String> = several
                .iter()
                .take(CANDIDATES_SHOWN_MAX)
                .map(|id| sanitized(id).into_owned())
                .collect();
            if several.len() > shown.len() {
                shown.push(format!("and {} more", several.len() - shown.len()));
            }
            Err(Error::usage(
                format!("{} {kind} ids {how} \"{}\"", several.len(), sanitized(part)),
                format!("type more of the id: {}", shown.join(", ")),
            ))
        }
    }
}

/// The ids most like `wanted`, best first, at most three.
pub(crate) fn nearest<'a>(wanted: &str, ids: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let limit = (wanted.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> =
        ids.map(|id| (distance(wanted, id), id)).filter(|(far, _)| *far <= limit).collect();
    near.sort_by_key(|(far, _)| *far);
    near.into_iter().take(3).map(|(_, id)| id).collect()
}

/// Edits between two texts: insert, delete, replace, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ids_come_best_first() {
        let ids = ["machine-1", "machine-2", "machine-10", "rack-7"];
        assert_eq!(nearest("machne-1", ids.into_iter()), ["machine-1", "machine-2", "machine-10"]);
        assert_eq!(nearest("amchine-2", ids.into_iter()), ["machine-2", "machine-1", "machine-10"]);
        assert!(nearest("q", ids.into_iter()).is_empty());
        assert_eq!(distance("abcd", "acbd"), 1);
    }

    #[test]
    fn a_part_must_be_unique() {
        let ids = ["019b76da-a800-78ef-a333-b266f1034752", "019b76da-a801-7000-a333-000000000001"];
        let found = |part: &str| by_part("run", part, ids.into_iter());
        assert_eq!(found("b266f1034752").unwrap().as_deref(), Some(ids[0]));
        assert_eq!(found("A801").unwrap().as_deref(), Some(ids[1]));
        assert_eq!(found("ffff").unwrap(), None);
        assert_eq!(found("019b76da").unwrap_err().to_string(), "2 run ids have \"019b76da\"");
    }

    #[test]
    fn an_empty_name_stands_for_nothing() {
        for wrong in ["", " ", "\t \u{a0}", "\u{200b}"] {
            let error = check_name("run", wrong).unwrap_err();
            assert_eq!(
                (error.code(), error.to_string().as_str()),
                (2, "the name of the run is empty")
            );
        }
        assert!(check_name("machine", " a").is_ok());
    }

    #[test]
    fn a_prefix_must_be_unique() {
        let ids = ["0190aaaa-1", "0190aaab-2"];
        assert_eq!(
            by_prefix("run", "0190aaab", ids.into_iter()).unwrap().as_deref(),
            Some("0190aaab-2")
        );
        assert_eq!(by_prefix("run", "ffff", ids.into_iter()).unwrap(), None);
        let error = by_prefix("run", "0190", ids.into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "2 run ids begin with \"0190\"");
        assert_eq!(error.code(), 2);
    }
}
