//! A terminal screen that is repainted in place, and its keyboard input.

use std::io::{self, BufRead, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc::UnboundedReceiver;

use super::output::width;
use super::ui::Ui;

/// Switch to the alternate screen and hide the cursor.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
/// Switch back and show the cursor.
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// To the first column of the first row.
const HOME: &str = "\u{1b}[H";
/// Erases the rest of the row.
const REST_OF_ROW: &str = "\u{1b}[K";
/// Erases everything below.
const REST: &str = "\u{1b}[J";
/// Size assumed for a terminal that does not report its own.
const SIZE_DEFAULT: (usize, usize) = (80, 24);

/// A key, decoded from a few bytes of input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// A character.
    Char(char),
    /// The arrow up.
    Up,
    /// The arrow down.
    Down,
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
}

/// The alternate screen of a terminal. Leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    is_open: bool,
    /// The terminal's settings before, if its keys are read.
    before: Option<Termios>,
}

impl Screen {
    /// Switches to the alternate screen. Input is no longer echoed, and keys arrive without Enter; Ctrl-C stays a
    /// signal.
    pub(crate) fn open(ui: &mut Ui) -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok().filter(|_| ui.io().stdin_is_terminal);
        if let Some(before) = &before {
            let mut modes = before.clone();
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(&stdin, OptionalActions::Now, &modes)?;
        }
        let screen = Self { is_open: true, before };
        write!(ui.out(), "{ENTER}")?;
        ui.flush()?;
        Ok(screen)
    }

    /// Columns and rows at present.
    pub(crate) fn size(ui: &Ui) -> (usize, usize) {
        let real = terminal_size::terminal_size()
            .map(|(width, height)| (usize::from(width.0), usize::from(height.0)));
        let (columns, rows) = real.unwrap_or(SIZE_DEFAULT);
        (ui.look.columns.filter(|_| real.is_none()).unwrap_or(columns), rows)
    }

    /// Paints lines over the previous ones: at most as many as there are rows, each cut at the last column. A line
    /// that the terminal wraps would scroll everything up at each repaint.
    pub(crate) fn paint(&mut self, ui: &mut Ui, lines: &[String]) -> io::Result<()> {
        let (columns, rows) = Self::size(ui);
        let mut text = HOME.to_owned();
        for (place, line) in lines.iter().take(rows).enumerate() {
            if place > 0 {
                text.push_str("\r\n");
            }
            text.push_str(&clipped(line, columns));
            text.push_str(REST_OF_ROW);
        }
        text.push_str(REST);
        ui.out().write_all(text.as_bytes())?;
        ui.flush()
    }

    /// Leaves the screen; the earlier output is visible again.
    pub(crate) fn close(mut self, ui: &mut Ui) -> io::Result<()> {
        self.is_open = false;
        self.restore();
        write!(ui.out(), "{LEAVE}")?;
        ui.flush()
    }

    fn restore(&mut self) {
        if let Some(before) = self.before.take() {
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.restore();
        if self.is_open {
            let _ = io::stderr().write_all(LEAVE.as_bytes());
        }
    }
}

/// The part of a line that fits into so many columns; escape sequences take none, and all of them are kept.
fn clipped(line: &str, columns: usize) -> String {
    let mut kept = String::with_capacity(line.len());
    let (mut used, mut in_escape) = (0, false);
    for c in line.chars() {
        if in_escape || c == '\u{1b}' {
            // Lines contain only colour sequences: they end with a letter.
            in_escape = !c.is_ascii_alphabetic();
            kept.push(c);
            continue;
        }
        used += width(c.encode_utf8(&mut [0; 4]));
        if used <= columns {
            kept.push(c);
        }
    }
    kept
}

/// The keys pressed from now on; none without a terminal.
pub(crate) fn keys(ui: &mut Ui) -> UnboundedReceiver<Key> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    if !ui.io().stdin_is_terminal {
        return receiver;
    }
    let mut input = ui.take_input();
    // The thread is still waiting for a key when the process ends; that needs no cleanup.
    std::thread::spawn(move || {
        loop {
            let bytes = match input.fill_buf() {
                Ok(bytes) if !bytes.is_empty() => bytes.to_vec(),
                Ok(_) | Err(_) => return,
            };
            input.consume(bytes.len());
            for key in keys_of(&bytes) {
                if sender.send(key).is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

/// Decodes the bytes of one read; a key that is held down may come several times in one.
fn keys_of(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut keys = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' if rest.next_if(|c| matches!(c, '[' | 'O')).is_some() => {
                // Parameters, then the letter that says which key it was.
                while rest.next_if(|c| c.is_ascii_digit() || *c == ';').is_some() {}
                match rest.next() {
                    Some('A') => keys.push(Key::Up),
                    Some('B') => keys.push(Key::Down),
                    Some(_) | None => {}
                }
            }
            '\u{1b}' => keys.push(Key::Escape),
            '\r' | '\n' => keys.push(Key::Enter),
            '\u{7f}' | '\u{8}' => keys.push(Key::Backspace),
            c if c.is_control() => {}
            c => keys.push(Key::Char(c)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clipped_between_their_colours() {
        assert_eq!(clipped("abc", 3), "abc");
        assert_eq!(clipped("a\u{1b}[1mbcd\u{1b}[0m", 2), "a\u{1b}[1mb\u{1b}[0m");
        assert_eq!(clipped("a\u{6f22}b", 2), "a");
        assert_eq!(clipped("abc", 0), "");
    }

    #[test]
    fn bytes_are_keys() {
        assert_eq!(keys_of(b"\x1b[A"), [Key::Up]);
        assert_eq!(
            keys_of(b"\x1b[A\x1bOB\x1b[Bq"),
            [Key::Up, Key::Down, Key::Down, Key::Char('q')]
        );
        assert_eq!(keys_of(b"\x1b"), [Key::Escape]);
        assert_eq!(keys_of(b"\x1b[5~"), []);
        assert_eq!(keys_of("ä\r\x7f\x01".as_bytes()), [Key::Char('ä'), Key::Enter, Key::Backspace]);
    }
}
