//! The canonical text of a plan: JSON of which a run pins a copy, and over which the digest is taken.
//!
//! Every field is written, defaults included, in one order and without blanks. Format 2 holds all that an engine must know of a step to
//! decide about it, so that no later table of actions changes what a pinned plan means. Format 1 left that to the table of the build;
//! it is read for ever, with that table as it was ([`format_1`]). A copy is never written again: its text and its digest stay.

mod format_1;
mod text;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::schema::Plan;
use text::PlanText;

/// Version of the format written by this build. It reads this one and every older one.
pub const FORMAT: u32 = 2;

/// Why a pinned copy cannot be read. The run that pinned it must then be held, not guessed at.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// Not the JSON of a plan.
    #[error("the pinned plan is not readable")]
    Json(#[from] serde_json::Error),
    /// Written by a newer version.
    #[error(
        "the pinned plan has format {found}, this build reads formats 1 to {FORMAT}; use the version that wrote it, or a newer one"
    )]
    Format {
        /// Format of the copy.
        found: u32,
    },
    /// Names something that this build does not know.
    #[error("the pinned plan names the unknown {what} `{name}`")]
    UnknownName {
        /// What it is a name of.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A plan, but not as its format writes it: it was edited.
    #[error("the pinned plan is not in canonical form")]
    NotCanonical,
}

impl Plan {
    /// The canonical text, the same for equal plans on every system.
    pub fn canonical(&self) -> String {
        json(&PlanText::from(self))
    }

    /// `sha256:<hex>` of the canonical text.
    pub fn digest(&self) -> String {
        digest(&self.canonical())
    }

    /// Reads a pinned copy back, in any format that was ever released.
    ///
    /// # Errors
    /// The text is not what [`Plan::canonical`] of some version wrote, or names something unknown here. An action may be unknown:
    /// whether it can be carried out is for the provider to say.
    pub fn from_canonical(text: &str) -> Result<Self, CanonicalError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        match serde_json::from_str::<Head>(text)?.format {
            format_1::FORMAT => read::<format_1::Form>(text),
            FORMAT => read::<text::Form>(text),
            found => Err(CanonicalError::Format { found }),
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

/// `sha256:<hex>` of a canonical text.
pub fn digest(canonical: &str) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(canonical) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests;
