//! Output of steps: collected as it comes, stored with the next commit of the run.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::message::Message;
use crate::clock::{Clock, Timestamp};
use crate::executor::brakes::Brakes;
use crate::executor::limits::{
    LOG_BUFFER_BYTES_MAX, LOG_CHUNK_BYTES_MAX, LOG_FLUSH_BYTES, LOG_LINE_BYTES_MAX,
};
use crate::model::{LogChunk, LogStream, Machine, Run};
use crate::provider::LogSink;
use crate::store::LogHead;

/// One printed line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    at: Timestamp,
    place: usize,
    attempt: u32,
    stream: LogStream,
    text: String,
}

impl Line {
    /// How much it counts towards the bound of the buffer: its text and about its overhead.
    fn cost(&self) -> usize {
        self.text.len() + 64
    }
}

/// Lines that are not committed yet. Bounded, since the store may be unavailable for long: lines that do not fit are
/// dropped and counted, and a line in their place says how many there were.
#[derive(Debug, Default)]
pub(super) struct LogBuffer(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<Line>,
    cost: usize,
    /// Lines dropped after these, and the last of them.
    dropped: Option<(u64, Line)>,
}

impl LogBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.lock().lines.is_empty()
    }

    /// Whether there is so much that it should be stored now.
    pub(super) fn is_large(&self) -> bool {
        self.lock().cost >= LOG_FLUSH_BYTES
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line. Returns whether the worker must be notified: it is the first line, or makes the buffer large.
    fn push(&self, line: Line) -> bool {
        let mut lines = self.lock();
        if lines.cost + line.cost() > LOG_BUFFER_BYTES_MAX {
            let count = lines.dropped.as_ref().map_or(0, |(count, _)| *count);
            lines.dropped = Some((count + 1, line));
            return false;
        }
        let before = lines.cost;
        lines.cost += line.cost();
        lines.lines.push(line);
        before == 0 || (before < LOG_FLUSH_BYTES && lines.cost >= LOG_FLUSH_BYTES)
    }

    /// Takes the lines out, for a commit.
    pub(super) fn take(&self) -> Vec<Line> {
        let Lines { mut lines, dropped, .. } = std::mem::take(&mut *self.lock());
        if let Some((count, last)) = dropped {
            let text =
                format!("[lines dropped here: {count}; the store did not take them in time]");
            lines.push(Line { text, ..last });
        }
        lines
    }

    /// Puts back lines whose commit did not happen.
    pub(super) fn put_back(&self, taken: Vec<Line>) {
        let mut lines = self.lock();
        lines.cost += taken.iter().map(Line::cost).sum::<usize>();
        lines.lines.splice(0..0, taken);
    }
}

/// Collects the lines of one call.
pub(super) struct CallLogs {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) worker: mpsc::UnboundedSender<Message>,
    pub(super) buffer: Arc<LogBuffer>,
    pub(super) place: usize,
    pub(super) attempt: u32,
    pub(super) brakes: Arc<Brakes>,
    pub(super) machine: Arc<Machine>,
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
        if self.buffer.push(line) {
            // A worker that has left has dropped the call.
            drop(self.worker.send(Message::Printed));
        }
    }

    fn may_begin(&self) -> bool {
        !self.brakes.is_on(&self.machine, self.clock.now())
    }
}

/// Turns lines into chunks of the run's log, and returns how much of it is stored once they are. A step that has
/// printed more than `step_bytes_max` keeps its beginning and gets a mark.
pub(super) fn chunks(
    run: &Run,
    lines: &[Line],
    mut head: LogHead,
    step_bytes_max: u64,
) -> (Vec<LogChunk>, LogHead) {
    let mut chunks: Vec<LogChunk> = Vec::new();
    for line in lines {
        let Some(step) = run.steps.get(line.place) else { continue };
        let bytes = head.step_bytes.entry(step.name.clone()).or_default();
        if *bytes >= step_bytes_max {
            continue;
        }
        *bytes += line.text.len() as u64 + 1;
        let truncated = *bytes >= step_bytes_max;
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
                offset: head.chunks,
                at: line.at,
                step: step.name.clone(),
                attempt: line.attempt,
                stream: line.stream,
                text: String::new(),
                truncated: false,
            });
            head.chunks += 1;
        }
        if let Some(last) = chunks.last_mut() {
            last.text.push_str(&line.text);
            last.text.push('\n');
            if truncated {
                last.text.push_str("[log of this step truncated here: it exceeded its limit]\n");
                last.truncated = true;
            }
        }
    }
    (chunks, head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::{MachineId, RunId};
    use crate::model::StepRecord;

    fn line(text: &str) -> Line {
        let stream = LogStream::Stdout;
        Line { at: Timestamp(1), place: 0, attempt: 1, stream, text: text.to_owned() }
    }

    fn run() -> Run {
        let id = RunId::new(Timestamp(1), [1, 0]);
        let mut run = crate::testing::run(id, MachineId::parse("m-1").unwrap(), Timestamp(1));
        run.steps.push(StepRecord::waiting("drain"));
        run
    }

    #[test]
    fn a_full_buffer_drops_lines_and_says_how_many() {
        let buffer = LogBuffer::default();
        let long = "x".repeat(1000);
        let mut heard = 0;
        for _ in 0..1000 {
            heard += u32::from(buffer.push(line(&long)));
        }
        assert_eq!(heard, 2, "the worker hears of the first line, and once that much waits");
        let lines = buffer.take();
        let kept = LOG_BUFFER_BYTES_MAX / line(&long).cost();
        assert_eq!(lines.len(), kept + 1);
        let mark = &lines.last().unwrap().text;
        let dropped = 1000 - kept;
        assert!(mark.starts_with(&format!("[lines dropped here: {dropped};")), "{mark}");
        buffer.put_back(lines);
        buffer.push(line(&long));
        let again = buffer.take();
        assert_eq!(again.len(), kept + 2, "there was no room for the line after them");
        assert!(again.last().unwrap().text.starts_with("[lines dropped here: 1;"));
    }

    #[test]
    fn chunks_continue_where_the_log_ends_and_stop_at_the_bound_of_the_step() {
        let run = run();
        let name = run.steps[0].name.clone();
        let head = LogHead { chunks: 7, step_bytes: [(name.clone(), 95)].into() };
        let (chunks, head) = chunks(&run, &[line("1234"), line("too much")], head, 100);
        assert_eq!(chunks.len(), 1);
        assert_eq!((chunks[0].offset, chunks[0].truncated), (7, true));
        assert!(chunks[0].text.starts_with("1234\n[log of this step truncated here"));
        assert_eq!((head.chunks, head.step_bytes[&name]), (8, 100));
        let (chunks, again) = super::chunks(&run, &[line("more")], head.clone(), 100);
        assert_eq!((chunks, again), (Vec::new(), head));
    }
}
