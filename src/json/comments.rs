//! The comments of the proto, as people read them.

use std::collections::HashMap;

use prost_reflect::FileDescriptor;

/// The comments of one file, by the path of what they are about.
pub(crate) struct Comments(HashMap<Vec<i32>, String>);

impl Comments {
    /// Those of a file.
    pub(crate) fn of(file: &FileDescriptor) -> Self {
        let info = file.file_descriptor_proto().source_code_info.as_ref();
        let locations = info.into_iter().flat_map(|info| &info.location);
        let comments = locations.filter_map(|location| {
            let text = location.leading_comments.as_ref()?;
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            Some((location.path.clone(), text))
        });
        Self(comments.collect())
    }

    /// The comment on what has this path; empty if there is none.
    pub(crate) fn at(&self, path: &[i32]) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// Its first sentence, without the full stop.
    pub(crate) fn first_sentence(&self, path: &[i32]) -> &str {
        let text = self.at(path);
        text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.')
    }
}
