//! The signature of a message: HMAC-SHA256 (RFC 2104) over its time and its body.

use std::fmt::Write as _;

use ring::hmac;

use crate::clock::Timestamp;

/// The header with the signature: `t=SECONDS,v1=HEX`.
pub const HEADER: &str = "bmdemo-signature";

/// The value of the header for a body that is sent now. The signed text is the seconds, a full stop, and the body.
#[must_use]
pub fn header(secret: &[u8], now: Timestamp, body: &[u8]) -> String {
    let seconds = now.0 / 1_000;
    let mut text = format!("t={seconds},v1=");
    for byte in mac(secret, &[format!("{seconds}.").as_bytes(), body]).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn mac(secret: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    parts.iter().for_each(|part| context.update(part));
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Test case 2 of RFC 4231, in one part and in two.
    #[test]
    fn a_published_example_comes_out() {
        let data = b"what do ya want for nothing?";
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(mac(b"Jefe", &[data]).as_ref()), wanted);
        assert_eq!(hex(mac(b"Jefe", &[&data[..3], &data[3..]]).as_ref()), wanted);
    }

    #[test]
    fn a_header_has_the_time_and_the_signature_of_time_and_body() {
        let header = header(b"Jefe", Timestamp(1_700_000_000_999), b"{}");
        let mac = hex(mac(b"Jefe", &[b"1700000000.{}"]).as_ref());
        assert_eq!(header, format!("t=1700000000,v1={mac}"));
    }
}
