//! Requests and answers of a controller.

use serde_json::Value as Json;

pub(super) struct Asked {
    pub(super) token: Option<String>,
    pub(super) basic: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) body: Json,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Json,
}

impl Answer {
    pub(super) fn new(status: u16, body: Json) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}
