//! Invisible characters, and characters that change how others are displayed.
//!
//! Ids, names and labels may not contain them; every other text may, and they are escaped when it is shown. This is
//! the only list.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a character is invisible: controls, separators of lines and paragraphs, and characters that reorder, join
/// or hide text. These are Unicode's default ignorable characters and its bidirectional controls.
#[must_use]
pub const fn is_hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The first hidden character of a text.
#[must_use]
pub fn hidden_in(text: &str) -> Option<char> {
    // Most texts are printable ASCII.
    if text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return None;
    }
    text.chars().find(|c| is_hidden(*c))
}

/// The text on one line, with every hidden character as an escape: `\n`, `\t`, `\r` or `\u{..}`.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if hidden_in(text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '\n' => write!(shown, "\\n"),
            '\t' => write!(shown, "\\t"),
            '\r' => write!(shown, "\\r"),
            c if is_hidden(c) => write!(shown, "\\u{{{:x}}}", u32::from(c)),
            c => write!(shown, "{c}"),
        };
    }
    Cow::Owned(shown)
}

/// Escapes the characters of JSON that a terminal would act on. They occur only in strings.
#[must_use]
pub fn json_escaped(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        assert_eq!(escaped("plain ünïcode ✓ 日本 שלום"), "plain ünïcode ✓ 日本 שלום");
        assert_eq!(escaped("\u{1b}[2J\u{7}x\u{9b}31m"), "\\u{1b}[2J\\u{7}x\\u{9b}31m");
        assert_eq!(escaped("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(escaped("user\u{202e}txt.exe"), "user\\u{202e}txt.exe");
        for hidden in [
            '\u{ad}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{2028}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{fe0f}',
            '\u{e0041}',
            '\u{3164}',
            '\u{fffa}',
            '\u{85}',
        ] {
            assert_eq!(
                escaped(&format!("r{hidden}1")),
                format!("r\\u{{{:x}}}1", u32::from(hidden))
            );
            assert_eq!(hidden_in(&format!("r{hidden}1")), Some(hidden));
        }
    }

    #[test]
    fn every_control_character_is_hidden() {
        assert!(('\0'..=char::MAX).filter(|c| c.is_control()).all(is_hidden));
    }
}
