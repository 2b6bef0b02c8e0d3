//! The result of a call.

use super::errors::error;
use super::shared::Durable;
use crate::lifecycle::step::ErrorClass;
use crate::model::LogStream;
use crate::provider::{ErrorCode, ProviderError};

/// The result of a call.
pub(super) struct Decided<T> {
    pub(super) result: Result<T, ProviderError>,
    /// Lines to print, in order.
    pub(super) lines: Vec<(LogStream, String)>,
    /// Resolves when the state behind the result is durable.
    pub(super) durable: Option<Durable>,
    /// The call never returns.
    pub(super) hangs: bool,
}

impl<T> From<Result<T, ProviderError>> for Decided<T> {
    fn from(result: Result<T, ProviderError>) -> Self {
        Self { result, lines: Vec::new(), durable: None, hangs: false }
    }
}

impl<T> Decided<T> {
    /// A call that never returns.
    pub(super) fn never() -> Self {
        let mut decided = Self::from(Err(error(
            ErrorClass::OutcomeUnknown,
            ErrorCode::Timeout,
            "never answered",
        )));
        decided.hangs = true;
        decided
    }

    pub(super) fn say(&mut self, lines: impl IntoIterator<Item = String>) {
        self.lines.extend(lines.into_iter().map(|line| (LogStream::Stdout, line)));
    }
}
