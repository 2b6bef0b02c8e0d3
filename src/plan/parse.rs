//! From plan files to plans: every mistake of every file at once, or all plans.

use toml::Spanned;
use toml::de::DeTable;

use super::action::Actions;
use super::check::{self, Checked};
use super::diagnostic::{Diagnostic, SourceFile};
use super::limits::{DIAGNOSTICS_PER_FILE_MAX, FILE_BYTES_MAX, FILES_MAX};
use super::read::Reader;
use super::schema::Plan;
use super::syntax;

/// Compiles plan files, sorted by plan id.
///
/// # Errors
/// Every mistake of every file, by file and position; [`super::diagnostic::render`] turns them into text.
pub fn compile(files: &[SourceFile<'_>]) -> Result<Vec<Plan>, Vec<Diagnostic>> {
    compile_with(files, Actions::BUILT_IN)
}

/// Like [`compile`], with these actions.
///
/// # Errors
/// Like [`compile`].
pub fn compile_with(
    files: &[SourceFile<'_>],
    actions: &Actions,
) -> Result<Vec<Plan>, Vec<Diagnostic>> {
    if files.len() > FILES_MAX {
        let message = format!("{} plan files are too many", files.len());
        return Err(vec![
            Diagnostic::new("plan::too-many", message, 0, 0..0, "")
                .help(format!("give at most {FILES_MAX} files")),
        ]);
    }
    let mut diagnostics = Vec::new();
    let mut checked = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut reader = Reader { file: index, diagnostics: Vec::new(), actions };
        let result = one_file(&mut reader, file);
        diagnostics.append(&mut bounded(index, reader.diagnostics));
        checked.extend(result.map(|result| (index, result)));
    }
    clashes(&checked, &mut diagnostics);
    if !diagnostics.is_empty() {
        diagnostics.sort_by_key(Diagnostic::sort_key);
        return Err(diagnostics);
    }
    let mut plans: Vec<Plan> =
        checked.into_iter().filter_map(|(_, checked)| checked.plan).collect();
    plans.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(plans)
}

/// In file order, and no more than people read: a file of garbage has thousands of mistakes.
pub(super) fn bounded(file: usize, mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by_key(Diagnostic::sort_key);
    if diagnostics.len() > DIAGNOSTICS_PER_FILE_MAX {
        let more = diagnostics.len() - DIAGNOSTICS_PER_FILE_MAX;
        let next = diagnostics[DIAGNOSTICS_PER_FILE_MAX]
            .labels
            .first()
            .map_or(0..0, |label| label.span.clone());
        diagnostics.truncate(DIAGNOSTICS_PER_FILE_MAX);
        let message = format!("{more} more errors in this file");
        diagnostics.push(
            Diagnostic::new("plan::too-many-errors", message, file, next, "the next is here")
                .help("fix the ones above first"),
        );
    }
    diagnostics
}

fn one_file(reader: &mut Reader<'_>, file: &SourceFile<'_>) -> Option<Checked> {
    let help = "a plan begins with `id = \"plan/NAME\"` and has `[[steps]]`";
    let document = document(reader, file, help)?;
    Some(check::plan(reader, document.get_ref()))
}

/// The document of a file without mistakes of syntax; `help` is for an empty one.
pub(super) fn document<'a>(
    reader: &mut Reader<'_>,
    file: &SourceFile<'a>,
    help: &str,
) -> Option<Spanned<DeTable<'a>>> {
    if file.bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes", file.bytes.len());
        let help = format!("a plan file has at most {} KiB", FILE_BYTES_MAX / 1024);
        reader.report("plan::too-large", message, 0..0, "", help);
        return None;
    }
    let text = match std::str::from_utf8(file.bytes) {
        Ok(text) => text,
        Err(error) => {
            let start = error.valid_up_to();
            let end = error.error_len().map_or(file.bytes.len(), |length| start + length);
            let message = "the file is not UTF-8";
            let label = format!("byte 0x{:02X} does not belong here", file.bytes[start]);
            reader.report(
                "plan::not-utf8",
                message,
                start..end,
                label,
                "save the file as UTF-8 text",
            );
            return None;
        }
    };
    let mistakes = syntax::mistakes(reader.file, text);
    if !mistakes.is_empty() {
        // What the parser could recover from a broken file would only give follow-up errors.
        reader.diagnostics.extend(mistakes);
        return None;
    }
    let (document, _) = DeTable::parse_recoverable(text);
    if document.get_ref().is_empty() {
        reader.report("plan::empty", "the file is empty", 0..0, "", help);
        return None;
    }
    Some(document)
}

/// Two plans with one id, or two defaults for one run type.
fn clashes(checked: &[(usize, Checked)], diagnostics: &mut Vec<Diagnostic>) {
    for (later, (file, one)) in checked.iter().enumerate() {
        let before = &checked[..later];
        if let Some(id) = &one.id {
            let first = before.iter().find_map(|(file, other)| {
                other
                    .id
                    .as_ref()
                    .filter(|other| other.value == id.value)
                    .map(|other| (*file, other.span.clone()))
            });
            if let Some((first_file, first)) = first {
                let message = format!("plan id `{}` is used twice", id.value);
                diagnostics.push(
                    Diagnostic::new(
                        "plan::duplicate-id",
                        message,
                        *file,
                        id.span.clone(),
                        "used again here",
                    )
                    .and(first_file, first, "first used here")
                    .help("give one of the plans another id"),
                );
                // A second copy of a plan also has its default; one report is enough.
                continue;
            }
        }
        if let Some(default) = &one.default_for {
            let first = before.iter().find_map(|(file, other)| {
                let found = other.default_for.as_ref().filter(|other| other.value == default.value);
                found.map(|other| (*file, other.span.clone()))
            });
            if let Some((first_file, first)) = first {
                let message = format!("two plans are the default for {}", default.value);
                diagnostics.push(
                    Diagnostic::new(
                        "plan::duplicate-default",
                        message,
                        *file,
                        default.span.clone(),
                        "claimed again here",
                    )
                    .and(first_file, first, "first claimed here")
                    .help("remove `default_for` from one of them"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
