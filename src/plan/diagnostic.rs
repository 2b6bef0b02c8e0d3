//! Mistakes in plan files, rendered in the style of rustc.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// A plan file as read: any bytes.
#[derive(Clone, Copy, Debug)]
pub struct SourceFile<'a> {
    /// Name to show, usually the path as given.
    pub name: &'a str,
    /// Content.
    pub bytes: &'a [u8],
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable code, such as `plan::unknown-action`.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// Positions concerned; the first is the mistake itself, the others explain it.
    pub labels: Vec<Label>,
    /// How to fix it.
    pub help: Option<String>,
}

/// A position in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Index of the file in the slice that was compiled.
    pub file: usize,
    /// Bytes of the file.
    pub span: Range<usize>,
    /// Text for the position; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// A mistake at one position.
    pub fn new(
        code: &'static str,
        message: impl Into<String>,
        file: usize,
        span: Range<usize>,
        text: impl Into<String>,
    ) -> Self {
        let label = Label { file, span, text: text.into() };
        Self { code, message: message.into(), labels: vec![label], help: None }
    }

    /// Adds a position that explains the mistake.
    #[must_use]
    pub fn and(mut self, file: usize, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label { file, span, text: text.into() });
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Order in which mistakes are shown: by file, then by position.
    pub(super) fn sort_key(&self) -> (usize, usize) {
        self.labels.first().map_or((usize::MAX, 0), |label| (label.file, label.span.start))
    }
}

/// Line and column, both counted from 1, of a byte offset; columns count characters.
pub fn line_column(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = &bytes[..offset.min(bytes.len())];
    let line_start =
        before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

/// All mistakes as text, ending with a line that counts them. `files` must be those that were compiled.
pub fn render(files: &[SourceFile<'_>], diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(140);
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&renderer.render(&[group(files, diagnostic)]));
        text.push_str("\n\n");
    }
    let places: BTreeSet<usize> = diagnostics
        .iter()
        .filter_map(|diagnostic| diagnostic.labels.first())
        .map(|label| label.file)
        .collect();
    let summary =
        format!("{} in {}", count(diagnostics.len(), "error"), count(places.len(), "plan file"));
    text.push_str(&renderer.render(&[Group::with_title(Level::ERROR.primary_title(summary))]));
    text.push('\n');
    text
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn group<'a>(files: &'a [SourceFile<'a>], diagnostic: &'a Diagnostic) -> Group<'a> {
    let mut group =
        Level::ERROR.primary_title(diagnostic.message.as_str()).id(diagnostic.code).elements(
            files_of(diagnostic)
                .into_iter()
                .filter_map(|file| Some(snippet(files.get(file)?, file, diagnostic))),
        );
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// Files that the labels name, in the order of the labels.
fn files_of(diagnostic: &Diagnostic) -> Vec<usize> {
    let mut files: Vec<usize> = Vec::new();
    for label in &diagnostic.labels {
        if !files.contains(&label.file) {
            files.push(label.file);
        }
    }
    files
}

/// The lines of one file that the labels touch, and nothing else: rendering stays cheap however long the file is.
fn snippet<'a>(
    source: &SourceFile<'a>,
    file: usize,
    diagnostic: &'a Diagnostic,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let labels: Vec<(usize, &Label)> =
        diagnostic.labels.iter().enumerate().filter(|(_, label)| label.file == file).collect();
    let size = source.bytes.len();
    let first = labels.iter().map(|(_, label)| label.span.start).min().unwrap_or(0).min(size);
    let last = labels.iter().map(|(_, label)| label.span.end).max().unwrap_or(0).clamp(first, size);
    let start = source.bytes[..first]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let end = source.bytes[last..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(size, |newline| last + newline);
    // Only the part after the first invalid byte can differ in length from the file, and no label is after it.
    let text: Cow<'a, str> = String::from_utf8_lossy(&source.bytes[start..end]);
    let annotations: Vec<_> = labels
        .into_iter()
        .map(|(index, label)| {
            let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let span = on_boundaries(
                &text,
                label.span.start.saturating_sub(start)..label.span.end.saturating_sub(start),
            );
            let annotation = kind.span(span);
            if label.text.is_empty() { annotation } else { annotation.label(label.text.as_str()) }
        })
        .collect();
    Snippet::source(text)
        .line_start(line_column(source.bytes, start).0)
        .path(source.name)
        .annotations(annotations)
}

/// The smallest range of whole characters within `text` that covers `span`.
fn on_boundaries(text: &str, span: Range<usize>) -> Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}
