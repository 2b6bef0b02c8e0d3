//! Values in the rules of a script: counts, probabilities, durations, and name patterns.

pub(super) fn any_or_count(key: &str, text: Option<&str>) -> Result<Option<u32>, String> {
    match text {
        None | Some("*") => Ok(None),
        Some(text) => count(key, text).map(Some).map_err(|why| format!("{why}, or *")),
    }
}

pub(super) fn count(key: &str, text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{key}={text}: expected a whole number from 1")),
        Ok(number) => Ok(number),
    }
}

pub(super) fn probability_ppm(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million"
        )]
        Ok(p) if (0.0..=1.0).contains(&p) => Ok((p * 1e6).round() as u32),
        Ok(_) | Err(_) => Err(format!("p={text}: expected a number from 0 to 1, such as 0.1")),
    }
}

/// Reads `500ms`, `5s`, `1m30s`, `1h`.
pub(super) fn parse_duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        rest = after;
    }
    Some(total)
}

/// Whether `text` matches `glob`, where `*` matches any characters and `?` one.
pub(super) fn matches(glob: &str, text: &str) -> bool {
    let (glob, text) = (glob.as_bytes(), text.as_bytes());
    let (mut g, mut t) = (0, 0);
    // Where to continue if the text after the last star does not match: the star takes one character more.
    let mut retry = None;
    while t < text.len() {
        match glob.get(g) {
            Some(b'*') => {
                retry = Some((g, t));
                g += 1;
            }
            Some(one) if *one == b'?' || *one == text[t] => {
                g += 1;
                t += 1;
            }
            Some(_) | None => match retry {
                Some((star, taken)) => {
                    retry = Some((star, taken + 1));
                    g = star + 1;
                    t = taken + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}
