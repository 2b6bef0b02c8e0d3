//! Catches panics of a provider, so that they do not take down the worker: the call then has an unknown outcome.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future whose panic becomes its result. What it was working on is dropped with it and never used again.
pub(in crate::executor) struct Caught<'a, F>(pub(in crate::executor) Pin<&'a mut F>);

impl<F: Future> Future for Caught<'_, F> {
    /// `Err` with the panic message.
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(payload) => Poll::Ready(Err(said(&*payload))),
        }
    }
}

fn said(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a word".to_owned())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_whenever_it_comes() {
        let at_once = pin!(async { panic!("at {}", "once") });
        assert_eq!(Caught::<'_, _>(at_once).await, Err::<(), _>("at once".to_owned()));
        let later = pin!(async {
            tokio::task::yield_now().await;
            panic!("later")
        });
        assert_eq!(Caught(later).await, Err::<(), _>("later".to_owned()));
        let never = pin!(async {
            tokio::task::yield_now().await;
            7
        });
        assert_eq!(Caught(never).await, Ok(7));
    }
}
