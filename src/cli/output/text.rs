//! Text: glyphs, colours by meaning, names of enum values, and sanitizing of foreign text for a terminal.

use std::borrow::Cow;

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr as _;

use crate::pb;
use crate::text::escaped;

/// How output looks: decided once, from flags, environment and terminal.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Whether to colour.
    pub(crate) color: bool,
    /// Whether to use ASCII only.
    pub(crate) ascii: bool,
    /// Maximum width in columns; unbounded if absent.
    pub(crate) columns: Option<usize>,
    /// Whether tables show instants as the time since, for people at a terminal.
    pub(crate) relative: bool,
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Went well.
    Good,
    /// Went wrong.
    Bad,
    /// Needs a look.
    Attention,
    /// In progress.
    Active,
    /// Of secondary interest.
    Dim,
    /// Heading.
    Strong,
    /// Nothing in particular.
    Plain,
}

impl Look {
    /// `text` in the colour of its meaning; the text alone without colour.
    pub(crate) fn paint(self, meaning: Meaning, text: &str) -> String {
        let style = match meaning {
            Meaning::Good => AnsiColor::Green.on_default(),
            Meaning::Bad => AnsiColor::Red.on_default().bold(),
            Meaning::Attention => AnsiColor::Yellow.on_default(),
            Meaning::Active => AnsiColor::Cyan.on_default(),
            Meaning::Dim => Style::new().dimmed(),
            Meaning::Strong => Style::new().bold(),
            Meaning::Plain => Style::new(),
        };
        if self.color && meaning != Meaning::Plain && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// The Unicode form, or the ASCII one where Unicode is not available.
    pub(crate) fn glyph(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }

    pub(crate) fn good(self) -> &'static str {
        self.glyph("✓", "+")
    }

    pub(crate) fn bad(self) -> &'static str {
        self.glyph("✗", "x")
    }

    pub(crate) fn canceled(self) -> &'static str {
        self.glyph("⊘", "/")
    }

    pub(crate) fn arrow(self) -> &'static str {
        self.glyph("→", "->")
    }

    pub(crate) fn again(self) -> &'static str {
        self.glyph("↻", "@")
    }

    pub(crate) fn held(self) -> &'static str {
        self.glyph("⏸", "||")
    }

    /// A condition in a table: absent is neither good nor bad.
    pub(crate) fn mark(self, status: Option<bool>) -> (&'static str, Meaning) {
        match status {
            Some(true) => (self.good(), Meaning::Good),
            Some(false) => (self.bad(), Meaning::Bad),
            None => ("-", Meaning::Plain),
        }
    }
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// `text` padded with spaces to `columns`; longer text is not cut.
pub(crate) fn padded(text: &str, columns: usize) -> String {
    let mut padded = text.to_owned();
    padded.extend(std::iter::repeat_n(' ', columns.saturating_sub(width(text))));
    padded
}

/// Length of the id of a run.
const RUN_ID_BYTES: usize = 36;

/// The end of a run's id, which differs between runs: ids made within the same minute begin alike.
pub(crate) fn short_run(id: &str) -> &str {
    match id.rsplit_once('-') {
        Some((_, tail)) if id.len() == RUN_ID_BYTES => tail,
        _ => id,
    }
}

/// A text in which ids of runs have their short form, as tables show them and every command accepts them.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    let is_id = |word: &[u8]| {
        word.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at + RUN_ID_BYTES <= bytes.len() {
        if is_id(&bytes[at..at + RUN_ID_BYTES]) {
            out.push_str(&text[copied..at]);
            copied = at + RUN_ID_BYTES;
            out.push_str(short_run(&text[at..copied]));
            at = copied;
        } else {
            at += 1;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// A line wrapped at spaces to fit the terminal; the lines after the first are indented. Words are not split, nor are
/// quoted arguments of a command, which is continued as a shell expects. Without a terminal the line is not wrapped.
pub(crate) fn wrapped(look: Look, line: &str, indent: usize) -> String {
    let Some(columns) = look.columns else { return line.to_owned() };
    let indent = indent.min(columns / 2);
    let mut out = String::new();
    let mut used = 0;
    let mut in_command = false;
    for (place, word) in words(line).into_iter().enumerate() {
        let columns_of_word = visible(word);
        // Room for the backslash of a continued command.
        let reserve = if in_command { 2 } else { 0 };
        if place > 0 && used + 1 + columns_of_word + reserve > columns && used > indent {
            out.push_str(if in_command { " \\\n" } else { "\n" });
            out.extend(std::iter::repeat_n(' ', indent));
            used = indent;
        } else if place > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += columns_of_word;
        in_command = match word {
            "bmdemo-cli" => true,
            _ => in_command && !word.ends_with([':', ',']),
        };
    }
    out
}

/// The words of a line; spaces in double quotes and leading spaces do not separate words.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut quoted = false;
    let body = line.len() - line.trim_start_matches(' ').len();
    for (place, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted && place >= body => {
                words.push(&line[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    words.push(&line[start..]);
    words
}

/// Columns that a text takes; escape sequences take none.
fn visible(text: &str) -> usize {
    let mut columns = 0;
    let mut in_sequence = false;
    for c in text.chars() {
        match c {
            '\u{1b}' => in_sequence = true,
            'm' if in_sequence => in_sequence = false,
            _ if in_sequence => {}
            c => columns += width(c.encode_utf8(&mut [0; 4])),
        }
    }
    columns
}

/// A text cut to so many columns, with `…` where something was cut off.
pub(crate) fn cut(look: Look, text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let more = look.glyph("…", "~");
    let mut kept = String::new();
    for c in text.chars() {
        if width(&kept) + width(c.encode_utf8(&mut [0; 4])) + 1 > columns {
            break;
        }
        kept.push(c);
    }
    kept.push_str(more);
    kept
}

/// Foreign text made safe to print on one line: control characters, escape sequences and characters that reorder or
/// hide text are written as `\u{..}`.
pub(crate) fn sanitized(text: &str) -> Cow<'_, str> {
    escaped(text)
}

/// As [`sanitized`], but line breaks and tabs stay: for logs and texts that are printed as a block.
pub(crate) fn multiline(text: &str) -> String {
    let lines: Vec<Cow<'_, str>> = text
        .split('\n')
        .map(|line| {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.contains('\t') {
                let cells: Vec<_> = line.split('\t').map(sanitized).collect();
                Cow::Owned(cells.join("\t"))
            } else {
                sanitized(line)
            }
        })
        .collect();
    lines.join("\n")
}

/// Name of an enum value without its prefix; a value of a newer server shows as its number.
macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $kind:ty, $prefix:literal;)+) => {
        $($(#[$doc])*
        pub(crate) fn $name(value: i32) -> String {
            match <$kind>::try_from(value) {
                Ok(known) => {
                    let full = known.as_str_name();
                    let short = full.strip_prefix($prefix).unwrap_or(full);
                    if short == "UNSPECIFIED" { "-".to_owned() } else { short.to_owned() }
                }
                Err(_) => format!("UNKNOWN({value})"),
            }
        })+
    };
}

names! {
    /// `READY` of PHASE_READY.
    phase_name: pb::Phase, "PHASE_";
    /// `IN_SERVICE` of EFFECTIVE_STATE_IN_SERVICE.
    effective_name: pb::EffectiveState, "EFFECTIVE_STATE_";
    /// `REPAVE` of RUN_TYPE_REPAVE.
    run_type_name: pb::RunType, "RUN_TYPE_";
    /// `RUNNING` of RUN_PHASE_RUNNING.
    run_phase_name: pb::RunPhase, "RUN_PHASE_";
    /// `SUCCEEDED` of STEP_STATE_SUCCEEDED.
    step_state_name: pb::StepState, "STEP_STATE_";
    /// `ACTING` of STEP_ACTIVITY_ACTING.
    activity_name: pb::StepActivity, "STEP_ACTIVITY_";
    /// `BACKOFF` of WAIT_REASON_BACKOFF.
    wait_reason_name: pb::WaitReason, "WAIT_REASON_";
    /// `HOLD` of ON_UNKNOWN_HOLD.
    on_unknown_name: pb::OnUnknown, "ON_UNKNOWN_";
    /// `OFF` of POWER_STATE_OFF.
    power_state_name: pb::PowerState, "POWER_STATE_";
    /// `WRITTEN` of INSTALLATION_STAGE_WRITTEN.
    installation_stage_name: pb::InstallationStage, "INSTALLATION_STAGE_";
}

/// Name of a condition as plans and filters write it, `InCustomerCluster`.
pub(crate) fn condition_name(value: i32) -> String {
    match pb::ConditionType::try_from(value) {
        Ok(pb::ConditionType::Reachable) => "Reachable".to_owned(),
        Ok(pb::ConditionType::InCustomerCluster) => "InCustomerCluster".to_owned(),
        Ok(pb::ConditionType::NeedsIntervention) => "NeedsIntervention".to_owned(),
        Ok(pb::ConditionType::Degraded) => "Degraded".to_owned(),
        Ok(pb::ConditionType::HardwareMatches) => "HardwareMatches".to_owned(),
        Ok(pb::ConditionType::Unspecified) => "-".to_owned(),
        Err(_) => format!("UNKNOWN({value})"),
    }
}

/// A name as one word: in quotes if it has characters that could be taken for what stands around it.
pub(crate) fn name_text(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-._@+".contains(c);
    match !name.is_empty() && name.chars().all(is_plain) {
        true => name.to_owned(),
        false => format!("\"{}\"", sanitized(name).replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_drive_the_terminal() {
        assert_eq!(sanitized("plain ünïcode ✓"), "plain ünïcode ✓");
        assert_eq!(sanitized("\u{1b}[2J\u{7}x"), "\\u{1b}[2J\\u{7}x");
        assert_eq!(sanitized("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(sanitized("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(sanitized("user\u{202e}txt.exe"), "user\\u{202e}txt.exe");
        assert_eq!(multiline("one\n\ttwo\u{1b}c\r\n"), "one\n\ttwo\\u{1b}c\n");
    }

    #[test]
    fn lines_are_broken_between_words() {
        let look = Look { columns: Some(20), ..Look::default() };
        assert_eq!(wrapped(look, "one two three four five", 2), "one two three four\n  five");
        assert_eq!(
            wrapped(look, "\u{1b}[32mone\u{1b}[0m two three four five", 2),
            "\u{1b}[32mone\u{1b}[0m two three four\n  five"
        );
        assert_eq!(
            wrapped(look, "x 012345678901234567890123456789 y", 0),
            "x\n012345678901234567890123456789\ny"
        );
        assert_eq!(
            wrapped(Look::default(), "one two three four five", 2),
            "one two three four five"
        );
        assert_eq!(
            wrapped(look, "Next: bmdemo-cli a b c --reason \"d e f\"", 2),
            "Next: bmdemo-cli a \\\n  b c --reason \\\n  \"d e f\""
        );
        assert_eq!(
            wrapped(look, "  indented text stays indented", 4),
            "  indented text\n    stays indented"
        );
    }

    #[test]
    fn short_forms_are_the_end_of_an_id() {
        assert_eq!(short_run("019b76da-a800-78ef-a333-b266f1034752"), "b266f1034752");
        assert_eq!(short_run("machine-1"), "machine-1");
        assert_eq!(
            shortened(
                "é retry 019b76da-a800-78ef-a333-b266f1034752, or 019b76da-a800-78ef-a333-b266f1034753"
            ),
            "é retry b266f1034752, or b266f1034753"
        );
        assert_eq!(shortened("019b76da-a800-78ef-a333"), "019b76da-a800-78ef-a333");
        assert_eq!(cut(Look::default(), "machine-1", 9), "machine-1");
        assert_eq!(cut(Look::default(), "machine-10", 9), "machine-…");
    }

    #[test]
    fn values_of_a_newer_server_show_as_numbers() {
        assert_eq!(phase_name(2), "READY");
        assert_eq!(phase_name(0), "-");
        assert_eq!(phase_name(99), "UNKNOWN(99)");
        assert_eq!(condition_name(2), "InCustomerCluster");
    }

    #[test]
    fn colour_goes_around_the_same_characters() {
        let plain = Look::default();
        let coloured = Look { color: true, ..plain };
        assert_eq!(plain.paint(Meaning::Good, "✓"), "✓");
        assert_eq!(coloured.paint(Meaning::Good, "✓"), "\u{1b}[32m✓\u{1b}[0m");
        assert_eq!(padded("✓", 3), "✓  ");
    }
}
