//! A limit on runs in progress: a number, or a share of the machines.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::executor;

/// A number of runs, or a share of the machines as in `"5%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cap(pub(crate) executor::Cap);

/// What is expected, for people.
const EXPECTED: &str = "a whole number of runs, or a share of the machines from \"1%\" to \"100%\"";

impl<'de> Deserialize<'de> for Cap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Cap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Cap, E> {
                let number = usize::try_from(number);
                let number = number.map_err(|_| E::custom(format!("give {EXPECTED}")))?;
                Ok(Cap(executor::Cap::Number(number)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Cap, E> {
                let percent = text.strip_suffix('%').and_then(|number| number.parse::<u8>().ok());
                let percent = percent.filter(|percent| (1..=100).contains(percent));
                let percent = percent.ok_or_else(|| E::custom(format!("give {EXPECTED}")))?;
                Ok(Cap(executor::Cap::Percent(percent)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}
