//! The canonical text of a plan: JSON of which a run pins a copy, and over which the digest is computed.
//!
//! Every field is written, defaults included, in a fixed order and without whitespace. Features added to the language
//! since format 2 are only written where a plan uses them, so that other plans keep their text. Format 2 holds
//! everything that an engine must know of a step to decide about it, so that no later table of actions changes the
//! meaning of a pinned plan. Format 1 left that to the table of the build; it stays readable forever, with a copy of
//! that table ([`format_1`]). A pinned copy is never rewritten: its text and its digest stay.

mod error;
mod format_1;
mod text;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::schema::Plan;
use text::{FORMAT, PlanText};

pub use error::CanonicalError;

impl Plan {
    /// The canonical text, the same for equal plans on every system.
    pub fn canonical(&self) -> String {
        json(&PlanText::from(self))
    }

    /// `sha256:<hex>` over the canonical text.
    pub fn digest(&self) -> String {
        digest(&self.canonical())
    }

    /// Parses a pinned copy, in any format that was ever released.
    ///
    /// # Errors
    /// The text was not written by [`Plan::canonical`] of any version, or names something unknown here. An action may
    /// be unknown: whether it can be performed is up to the provider.
    pub fn from_canonical(text: &str) -> Result<Self, CanonicalError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        match serde_json::from_str::<Head>(text)?.format {
            format_1::FORMAT => read::<format_1::Form>(text),
            FORMAT => read::<text::Form>(text),
            found => Err(CanonicalError::Format { found, newest: FORMAT }),
        }
    }
}

fn read<F: text::Format>(text: &str) -> Result<Plan, CanonicalError> {
    let read: PlanText<F> = serde_json::from_str(text)?;
    if json(&read) != text {
        return Err(CanonicalError::NotCanonical);
    }
    read.try_into()
}

fn json<F: text::Format>(plan: &PlanText<F>) -> String {
    serde_json::to_string(plan)
        .expect("strings, numbers and maps with string keys always serialize")
}

/// `sha256:<hex>` over a canonical text.
pub fn digest(canonical: &str) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(canonical) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests;
