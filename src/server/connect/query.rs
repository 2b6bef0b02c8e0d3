//! Calls by GET: the request is in the query.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::shape::Format;
use crate::executor::EngineError;

/// The value of a parameter, decoded; `None` if it is not there.
fn parameter(query: Option<&str>, wanted: &str) -> Option<Vec<u8>> {
    let pairs = query.unwrap_or_default().split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
    Some(decoded(value))
}

/// Without the escapes of URLs. One that is none stays as it is.
fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        match (first, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    bytes
}

/// How the message is written: as JSON if nothing is said; `None` for what is unknown.
pub(super) fn format(query: Option<&str>) -> Option<Format> {
    match parameter(query, "encoding").as_deref() {
        None | Some(b"json") => Some(Format::Json),
        Some(b"proto") => Some(Format::Proto),
        Some(_) => None,
    }
}

/// The message. Without one it is empty.
///
/// # Errors
/// [`EngineError::Invalid`], which names the parameter.
pub(super) fn message(query: Option<&str>, format: Format) -> Result<Vec<u8>, EngineError> {
    if parameter(query, "connect").is_some_and(|version| version != b"v1") {
        return Err(EngineError::invalid("connect", "must be v1"));
    }
    if parameter(query, "compression").is_some_and(|how| !how.is_empty() && how != b"identity") {
        return Err(EngineError::invalid("compression", "is not supported: leave it out"));
    }
    let Some(message) = parameter(query, "message") else {
        let empty: &[u8] = if format == Format::Json { b"{}" } else { b"" };
        return Ok(empty.to_vec());
    };
    match parameter(query, "base64").as_deref() {
        None | Some(b"0") => Ok(message),
        Some(b"1") => {
            let padding = message.iter().rev().take_while(|byte| **byte == b'=').count();
            let message = &message[..message.len() - padding];
            let decoded = URL_SAFE_NO_PAD.decode(message);
            decoded.map_err(|_| EngineError::invalid("message", "is not base64 for URLs"))
        }
        Some(_) => Err(EngineError::invalid("base64", "must be 0 or 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_in_the_query() {
        let of = |query: &str, format| message(Some(query), format);
        for (query, wanted) in [
            ("", "{}"),
            ("encoding=json", "{}"),
            ("connect=v1&encoding=json&message=%7B%22pageSize%22%3A3%7D", "{\"pageSize\":3}"),
            ("message={\"filter\":\"phase+=+READY\"}", "{\"filter\":\"phase = READY\"}"),
            ("base64=1&message=eyJwYWdlU2l6ZSI6M30", "{\"pageSize\":3}"),
            ("base64=1&message=e30%3D", "{}"),
            ("message=%zz%7", "%zz%7"),
        ] {
            let found = of(query, Format::Json).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), wanted, "{query}");
        }
        assert_eq!(of("encoding=proto", Format::Proto).unwrap(), b"");
        assert_eq!(of("encoding=proto&message=%10%03", Format::Proto).unwrap(), [16, 3]);
        assert_eq!(message(None, Format::Json).unwrap(), b"{}");
        for wrong in
            ["connect=v2", "compression=gzip", "base64=yes&message=x", "base64=1&message=é"]
        {
            assert!(of(wrong, Format::Json).is_err(), "{wrong}");
        }
        assert_eq!(format(Some("encoding=xml")), None);
        assert_eq!(format(Some("message=x&encoding=proto")), Some(Format::Proto));
    }
}
