//! Reading what controllers send: leniently, for they leave out what is required and send what no schema has.

use serde_json::Value as Json;

/// Longest text of a controller in a message, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// The text at a path of names; empty if there is none.
pub(super) fn text<'a>(json: &'a Json, path: &[&str]) -> &'a str {
    at(json, path).and_then(Json::as_str).unwrap_or_default().trim()
}

/// The value at a path of names.
pub(super) fn at<'a>(json: &'a Json, path: &[&str]) -> Option<&'a Json> {
    path.iter().try_fold(json, |json, name| json.get(name))
}

/// The path that a property links to: `{"@odata.id": "/…"}`, or the text itself.
pub(super) fn link<'a>(json: &'a Json, path: &[&str]) -> Option<&'a str> {
    let value = at(json, path)?;
    let text = value.get("@odata.id").unwrap_or(value).as_str()?;
    text.starts_with('/').then_some(text)
}

/// The paths of a collection's members, or of a list of links.
pub(super) fn links<'a>(json: &'a Json, path: &[&str]) -> Vec<&'a str> {
    let members = at(json, path).and_then(Json::as_array);
    members.into_iter().flatten().filter_map(|member| link(member, &[])).collect()
}

/// The texts of a list.
pub(super) fn texts<'a>(json: &'a Json, path: &[&str]) -> Vec<&'a str> {
    at(json, path).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
}

/// A text of a controller, fit for a message: without control characters, and not too long.
pub(super) fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    line.chars().take(TEXT_CHARS_MAX).collect()
}

/// What the body of a refusal says: the messages of Redfish, or its text.
pub(super) fn said(body: &[u8]) -> String {
    let Ok(json) = serde_json::from_slice::<Json>(body) else {
        // Some answer with a page of HTML, which says nothing.
        let text = String::from_utf8_lossy(body);
        return if text.trim_start().starts_with('<') { String::new() } else { plain(&text) };
    };
    let error = json.get("error").unwrap_or(&json);
    let infos = at(error, &["@Message.ExtendedInfo"]).and_then(Json::as_array);
    let messages: Vec<&str> =
        infos.into_iter().flatten().map(|info| text(info, &["Message"])).collect();
    let messages = messages.join(" ");
    plain(if messages.is_empty() { text(error, &["message"]) } else { &messages })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn links_and_texts_are_found_or_not() {
        let json = json!({
            "Systems": {"@odata.id": "/redfish/v1/Systems"},
            "Members": [{"@odata.id": "/a"}, {"id": "/b"}, "/c", 7, {"@odata.id": "http://x/d"}],
            "PowerState": " On ",
            "Actions": {"#X.Reset": {"target": "/reset", "Allowed": ["On", 7, "Off"]}},
        });
        assert_eq!(link(&json, &["Systems"]), Some("/redfish/v1/Systems"));
        assert_eq!(link(&json, &["Actions", "#X.Reset", "target"]), Some("/reset"));
        assert_eq!(link(&json, &["PowerState"]), None);
        assert_eq!(links(&json, &["Members"]), ["/a", "/c"]);
        assert_eq!(text(&json, &["PowerState"]), "On");
        assert_eq!(text(&json, &["Absent", "x"]), "");
        assert_eq!(texts(&json, &["Actions", "#X.Reset", "Allowed"]), ["On", "Off"]);
    }

    #[test]
    fn refusals_are_read_in_all_their_forms() {
        let redfish = json!({"error": {"code": "Base.1.0.GeneralError", "message": "See below.",
            "@Message.ExtendedInfo": [{"Message": "No power."}, {"Message": "Try\u{1b} again."}]}});
        assert_eq!(said(redfish.to_string().as_bytes()), "No power. Try again.");
        let short = json!({"error": {"message": "Bad request"}});
        assert_eq!(said(short.to_string().as_bytes()), "Bad request");
        assert_eq!(said(b"plain\r\n text"), "plain text");
        assert_eq!(said(b"<html><body>500</body></html>"), "");
        assert_eq!(said(b""), "");
        assert_eq!(said(&[0xff, b'x']), "\u{fffd}x");
        assert_eq!(said("y".repeat(1_000).as_bytes()).len(), 300);
    }
}
