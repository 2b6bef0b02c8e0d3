//! The output of a program, line by line and bounded.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use zeroize::Zeroizing;

use crate::model::LogStream;
use crate::provider::Logs;

/// Longest line that is kept; the rest of a longer one is dropped.
const LINE_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 8 * 1024;
/// How the line with the answer begins.
pub(super) const ANSWER_MARK: &str = "bmdemo: ";

/// What a program has printed.
pub(super) struct Output {
    logs: Option<Logs>,
    kept: Mutex<Kept>,
}

/// What of it is needed after its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// The last answer, without its mark.
    pub(super) answer: Option<Zeroizing<String>>,
    /// The last line on standard error that is not empty.
    pub(super) last_error: String,
}

impl Output {
    pub(super) fn new(logs: Option<Logs>) -> Self {
        Self { logs, kept: Mutex::default() }
    }

    /// What has been kept so far.
    pub(super) fn kept(&self) -> Kept {
        self.lock().clone()
    }

    /// Adds a line of the driver itself.
    pub(super) fn note(&self, text: &str) {
        match &self.logs {
            Some(logs) => logs.line(LogStream::Engine, text),
            None => tracing::debug!(text, "of a program"),
        }
    }

    /// Reads a stream to its end.
    pub(super) async fn read(&self, stream: LogStream, mut from: impl AsyncRead + Unpin) {
        let mut line = Vec::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            // A stream that cannot be read has ended.
            let count = from.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                if !line.is_empty() {
                    self.line(stream, &line);
                }
                return;
            }
            let mut pieces = buffer[..count].split(|byte| *byte == b'\n');
            if let Some(rest) = pieces.next() {
                append(&mut line, rest);
            }
            for piece in pieces {
                self.line(stream, &line);
                line.clear();
                append(&mut line, piece);
            }
        }
    }

    fn line(&self, stream: LogStream, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end_matches('\r');
        if stream == LogStream::Stdout
            && let Some(answer) = text.strip_prefix(ANSWER_MARK)
        {
            self.lock().answer = Some(Zeroizing::new(answer.to_owned()));
            return;
        }
        if stream == LogStream::Stderr && !text.trim().is_empty() {
            text.clone_into(&mut self.lock().last_error);
        }
        match &self.logs {
            Some(logs) => logs.line(stream, text),
            None => tracing::debug!(text, "a program printed"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn append(line: &mut Vec<u8>, piece: &[u8]) {
    let room = LINE_BYTES_MAX.saturating_sub(line.len());
    line.extend_from_slice(&piece[..piece.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::provider::LogSink;

    #[derive(Default)]
    struct Sink(Mutex<Vec<String>>);

    impl LogSink for Sink {
        fn line(&self, stream: LogStream, text: &str) {
            self.0.lock().unwrap().push(format!("{} {text}", stream.as_str()));
        }
    }

    #[tokio::test]
    async fn lines_are_whole_bounded_and_the_last_answer_counts() {
        let sink = Arc::new(Sink::default());
        let output = Output::new(Some(sink.clone()));
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let text = format!("one\r\n\nbmdemo: {{\"a\":1}}\n{long}\nbmdemo: {{}}\nlast \u{e4}");
        output.read(LogStream::Stdout, text.as_bytes()).await;
        output.read(LogStream::Stderr, &b"bmdemo: no\n\xff\n  \n"[..]).await;
        let kept = output.kept();
        assert_eq!(kept.answer.as_deref().map(String::as_str), Some("{}"));
        assert_eq!(kept.last_error, "\u{fffd}");
        let lines = sink.0.lock().unwrap();
        assert_eq!(lines[..2], ["stdout one", "stdout "]);
        assert_eq!(lines[2].len(), "stdout ".len() + LINE_BYTES_MAX);
        assert_eq!(
            lines[3..],
            ["stdout last \u{e4}", "stderr bmdemo: no", "stderr \u{fffd}", "stderr   "]
        );
    }
}
