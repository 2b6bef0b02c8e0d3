//! What steps print: collected as it comes, stored with the next commit of the run.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::message::Message;
use crate::clock::{Clock, Timestamp};
use crate::executor::limits::{LOG_CHUNK_BYTES_MAX, LOG_LINE_BYTES_MAX};
use crate::model::{LogChunk, LogStream, Run};
use crate::provider::LogSink;

/// One printed line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    at: Timestamp,
    place: usize,
    attempt: u32,
    stream: LogStream,
    text: String,
}

/// Lines that no commit has taken yet.
#[derive(Debug, Default)]
pub(super) struct LogBuffer(Mutex<Vec<Line>>);

impl LogBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lines out, for a commit.
    pub(super) fn take(&self) -> Vec<Line> {
        std::mem::take(&mut self.lock())
    }

    /// Puts lines back whose commit did not happen.
    pub(super) fn put_back(&self, lines: Vec<Line>) {
        self.lock().splice(0..0, lines);
    }
}

/// Takes the lines of one call.
pub(super) struct CallLogs {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) worker: mpsc::UnboundedSender<Message>,
    pub(super) buffer: Arc<LogBuffer>,
    pub(super) place: usize,
    pub(super) attempt: u32,
}

impl LogSink for CallLogs {
    fn line(&self, stream: LogStream, text: &str) {
        let mut end = text.len().min(LOG_LINE_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line = Line {
            at: self.clock.now(),
            place: self.place,
            attempt: self.attempt,
            stream,
            text: text[..end].replace('\n', " "),
        };
        let first = {
            let mut lines = self.buffer.lock();
            lines.push(line);
            lines.len() == 1
        };
        if first {
            // A worker that has left has forgotten the call.
            drop(self.worker.send(Message::Printed));
        }
    }
}

/// Turns lines into chunks of the run's log, and counts them in the run's record. A step that has printed more than
/// `step_bytes_max` keeps its beginning and gets a mark.
pub(super) fn chunks(run: &mut Run, lines: &[Line], step_bytes_max: u64) -> Vec<LogChunk> {
    let mut chunks: Vec<LogChunk> = Vec::new();
    for line in lines {
        let Some(step) = run.steps.get_mut(line.place) else { continue };
        if step.log_bytes >= step_bytes_max {
            continue;
        }
        step.log_bytes += line.text.len() as u64 + 1;
        let truncated = step.log_bytes >= step_bytes_max;
        let fits = chunks.last().is_some_and(|last| {
            last.step == step.name
                && last.attempt == line.attempt
                && last.stream == line.stream
                && !last.truncated
                && last.text.len() + line.text.len() < LOG_CHUNK_BYTES_MAX
        });
        if !fits {
            chunks.push(LogChunk {
                run_id: run.id,
                offset: run.log_chunks,
                at: line.at,
                step: step.name.clone(),
                attempt: line.attempt,
                stream: line.stream,
                text: String::new(),
                truncated: false,
            });
            run.log_chunks += 1;
        }
        if let Some(last) = chunks.last_mut() {
            last.text.push_str(&line.text);
            last.text.push('\n');
            if truncated {
                last.text.push_str("[log of this step truncated here: it exceeded its bound]\n");
                last.truncated = true;
            }
        }
    }
    chunks
}
